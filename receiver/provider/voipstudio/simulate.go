package voipstudio

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const layout = "2006-01-02 15:04:05" // VoIPstudio: Y-m-d H:i:s, UTC

// Compose makes the fields of an event as VoIPstudio sends them, about a call.
func Compose(name, call, eventID string, at time.Time) (canonical string, fields map[string]any, err error) {
	name = strings.ToLower(name)
	if !slices.Contains(Names, name) {
		return "", nil, fmt.Errorf("expected one of VoIPstudio's events (%s), got %q", strings.Join(Names, ", "), name)
	}
	stamp := at.UTC().Format(layout)
	fields = map[string]any{"id": eventID, "event_time": stamp, "event_name": name}
	if name == "sms.received" {
		maps.Copy(fields, map[string]any{"customer_id": 100, "user_id": nil, "from_no": "447854740947", "to_no": "441183211001", "text": "Hello"})
		return name, fields, nil
	}
	leg := any(call)
	if number, err := strconv.ParseInt(call, 10, 64); err == nil {
		leg = number // VoIPstudio: call_id is an integer
	}
	maps.Copy(fields, map[string]any{
		"call_id": leg, "state": wireStates[name], "connected_at": nil, "start_time": at.Add(-18 * time.Second).UTC().Format(layout),
		"context": "LOCAL_USER", "destination": "in", "duration": 0, "t_cause": "",
		"src": "447854740947", "src_id": "0", "src_name": `"442035141598" <2035141598>`, "src_hash": "fe5935cefbc82fc4e924bdaa21342a49c18c5dd9",
		"dst": "441183211001", "dst_id": "10002", "dst_name": "John Smith",
	})
	switch name {
	case "call.hangup":
		maps.Copy(fields, map[string]any{"connected_at": at.Add(-11 * time.Second).UTC().Format(layout), "duration": 11, "t_cause": "Normal Clearing", "terminated_by": "caller"})
	case "call.connected", "call.hold", "call.unhold":
		fields["connected_at"] = stamp
	case "call.missed":
		fields["t_cause"] = "No Answer"
	case "call.dtmf":
		maps.Copy(fields, map[string]any{"dtmf_tag": "*", "dtmf_target": "U:123456"})
	case "monitor.audio_ready":
		delete(fields, "state")
		maps.Copy(fields, map[string]any{"monitor_id": 123456, "customer_id": 100, "user_id": 50, "duration": 45, "size": 2048000})
	}
	return name, fields, nil
}

var wireStates = map[string]string{
	"call.initial": "INITIAL", "call.ringing": "RINGING", "call.connected": "CONNECTED", "call.hold": "ON_HOLD",
	"call.unhold": "CONNECTED", "call.missed": "MISSED", "call.hangup": "HANGUP", "call.dtmf": "DTMF_RECEIVED", "queue.wrapup": "START",
}

// Call are the events of a whole incoming call that is answered, held and ended.
var Call = []string{"call.initial", "call.ringing", "call.connected", "call.hold", "call.unhold", "call.hangup"}
