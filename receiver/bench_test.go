package receiver_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkWay is the whole way of an event: 64 connections in, one HTTP target out, on disk between. The
// client and the target are in it too: look at its profile, not at its time (make bench measures that).
func BenchmarkWay(b *testing.B) {
	var delivered atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		delivered.Add(1)
	}))
	defer s.Close()
	text := strings.Replace(manifest("first", fmt.Sprintf(`{name: a, url: %q, concurrency: 64}`, s.URL)), "spec:\n", "spec:\n  filter: {expression: event.call.talkSeconds > 10}\n", 1)
	r := start(b, text)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			body := fmt.Sprintf(`{"event_name":"Cdr","unique_id":"%d.1","src":"9123456789","dst":"991","disposition":"ANSWERED","type":"incoming","billsec":"11","duration":"19","starttime":"2026-11-22 08:00:00","endtime":"2026-11-22 08:00:19"}`, n.Add(1)/5)
			request, err := http.NewRequest(http.MethodPost, "http://"+r.hooks+"/hooks/crm/callcenter", strings.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			request.SetBasicAuth("pbx", "first")
			response, err := client.Do(request)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
	})
	r.eventually("all are delivered", func() bool { return delivered.Load() >= n.Load() })
}
