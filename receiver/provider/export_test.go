package provider

import (
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// DecodeWith decodes a request by a decoder of a test.
func DecodeWith(d Decoder, r *event.Request) event.Event {
	return decode(d, v1alpha1.Simotel, r, wire.Settings{})
}
