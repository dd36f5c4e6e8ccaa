package provider_test

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// fails is a decoder with a defect.
type fails struct{}

func (fails) Decode(*event.Request, wire.Settings) event.Event {
	var none []string
	return event.Event{Name: none[3]}
}

// TestDecoderThatFails: its event is unparsed, with the reason and the request.
func TestDecoderThatFails(t *testing.T) {
	before := provider.Failures()
	e := provider.DecodeWith(fails{}, &event.Request{Method: "POST", Body: []byte("x=1")})
	require.Equal(t, event.Unparsed, e.Type)
	require.Contains(t, e.Reason, "index out of range")
	require.Contains(t, e.Reason, "failure_test.go:")
	require.Equal(t, "x=1", e.Request.Body)
	require.Equal(t, before+1, provider.Failures())
}

// TestUnparsedHasTheBody byte for byte.
func TestUnparsedHasTheBody(t *testing.T) {
	for body, want := range map[string]string{"{\"event_name\":": "", "\xff\xfe\x00\xd8": base64.StdEncoding.EncodeToString([]byte("\xff\xfe\x00\xd8")), "سلام": ""} {
		e := provider.Decode(v1alpha1.Simotel, &event.Request{Method: "POST", Body: []byte(body)}, wire.Settings{})
		require.Equal(t, event.Unparsed, e.Type, "%q", body)
		require.Equal(t, want, e.Request.BodyBase64)
		if want == "" {
			require.Equal(t, body, e.Request.Body)
		}
	}
}
