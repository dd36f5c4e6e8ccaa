package provider_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// BenchmarkDecode is what an event costs twice: when it comes, and when it goes out.
func BenchmarkDecode(b *testing.B) {
	request := &event.Request{
		Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}, ReceivedAt: time.Now(),
		Body: []byte(`{"event_name":"Cdr","unique_id":"1610778618.378","cuid":"1610778618.378","src":"9123456789","dst":"991","disposition":"ANSWERED","type":"incoming","billsec":"11","duration":"19","starttime":"2026-11-22 08:00:00","endtime":"2026-11-22 08:00:19"}`),
	}
	settings := wire.Settings{Location: time.UTC, Region: "IR"}
	b.ReportAllocs()
	for b.Loop() {
		provider.Decode(v1alpha1.Simotel, request, settings)
	}
}
