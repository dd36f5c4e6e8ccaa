package acefone

import (
	"fmt"
	"maps"
	"strings"
	"time"
)

const layout = "2006-01-02 15:04:05" // in the zone chosen in the panel

// Compose makes the fields of a trigger as Acefone's stock template sends them, about a call; at is in
// the panel's zone.
func Compose(name, call string, at time.Time) (trigger Trigger, fields map[string]any, err error) {
	found := byPath("/" + name)
	if found == nil {
		names := make([]string, len(Triggers))
		for i, t := range Triggers {
			names[i] = t.Name
		}
		return Trigger{}, nil, fmt.Errorf("expected one of Acefone's triggers (%s), got %q", strings.Join(names, ", "), name)
	}
	fields = map[string]any{
		"uuid": fmt.Sprintf("%013x", at.UnixMicro()), "call_id": call, "direction": "inbound",
		"call_to_number": "+919876500013", "caller_id_number": "9876500014", "customer_no_with_prefix ": "+919876500014",
		"start_stamp": at.Add(-20 * time.Second).Format(layout), "campaign_name": "$campaign_name",
	}
	switch found.Name {
	case "CallAnsweredOnIVR":
		maps.Copy(fields, map[string]any{"ivr_id": "59726", "ivr_name": "Main"})
	case "CallAnsweredOnCallQueue":
		fields["queue_name"] = "Sales"
	case "CallAnsweredByExtension":
		maps.Copy(fields, map[string]any{"answer_agent_number": "+919876500010", "call_status": "Answered by agent"})
	case "CallAnsweredByCustomer":
		maps.Copy(fields, map[string]any{"direction": "click_to_call", "call_status": "Answered by customer"})
	case "DTMFOption":
		maps.Copy(fields, map[string]any{"digit_pressed": "3", "date": at.Format(layout)})
	case "CallMissed":
		maps.Copy(fields, map[string]any{"call_status": "missed", "answer_stamp": "", "end_stamp": at.Format(layout), "duration": "20", "billsec": "0", "hangup_cause": "NormalClearing"})
	case "CallHangup", "CallMissedOrAnswered":
		maps.Copy(fields, map[string]any{
			"call_status": "answered", "answer_stamp": at.Add(-9 * time.Second).Format(layout), "end_stamp": at.Format(layout), "duration": "20", "billsec": "9",
			"answered_agent": map[string]any{"id": "0502141810358", "name": "Rep", "number": "+919876500010"}, "hangup_cause": "disconnected_by_caller",
			"recording_url": "https://recordings.example.com/rec?callId=" + call,
		})
	}
	return *found, fields, nil
}

// Call are the triggers of a whole incoming call that is answered.
var Call = []string{"CallReceivedOnServer", "CallAnsweredOnIVR", "DTMFOption", "DialedOnExtensions", "CallAnsweredByExtension", "CallHangup"}
