package wire

import (
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
)

// Directions are what PBXs write for a call's direction; CallTypes are the types of calls that these words stand for.
// The words are compared as Plain writes them.
var (
	Directions = map[string]string{
		"in": event.Inbound, "inbound": event.Inbound, "incoming": event.Inbound,
		"out": event.Outbound, "outbound": event.Outbound, "outgoing": event.Outbound,
		"internal": event.Internal, "local": event.Internal,
	}
	CallTypes = map[string]string{
		"in": string(v1alpha1.CallTypeInbound), "inbound": string(v1alpha1.CallTypeInbound), "incoming": string(v1alpha1.CallTypeInbound),
		"out": string(v1alpha1.CallTypeOutbound), "outbound": string(v1alpha1.CallTypeOutbound), "outgoing": string(v1alpha1.CallTypeOutbound),
		"internal": string(v1alpha1.CallTypeInternal), "local": string(v1alpha1.CallTypeInternal),
	}
)

// Words returns the words of several tables; those of a later one count.
func Words(tables ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, table := range tables {
		for word, canonical := range table {
			all[word] = canonical
		}
	}
	return all
}
