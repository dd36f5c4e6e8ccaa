package simotel

import (
	"fmt"
	"maps"
	"strings"
	"time"
)

const layout = "2006-01-02 15:04:05.000000" // Simotel: samples of all pages

// Compose makes the fields of an event as Simotel sends them, about a call.
func Compose(name, call string, at time.Time) (canonical string, fields map[string]any, err error) {
	canonical, ok := spelling[strings.ToLower(name)]
	if !ok {
		return "", nil, fmt.Errorf("expected one of Simotel's events (%s), got %q", strings.Join(Names, ", "), name)
	}
	stamp := at.UTC().Format(layout)
	fields = map[string]any{"event_name": canonical}
	add := func(more map[string]any) { maps.Copy(fields, more) }
	switch canonical {
	case "IncomingCall":
		add(map[string]any{"number": "09331112233", "entry_point": "to_simo_51_20"})
	case "OutgoingCall":
		add(map[string]any{"number": "09331112233", "outgoing_point": "to_simo_51_20"})
	case "NewState":
		add(map[string]any{"exten": "991", "state": "Ringing", "participant": "09331112233", "direction": "in"})
	case "Transfer":
		add(map[string]any{"transferer": "993", "transferred_from": "991", "transferred_to": "993"})
	case "Cdr":
		add(map[string]any{
			"starttime": at.Add(-20 * time.Second).UTC().Format(layout), "endtime": stamp, "src": "09331112233", "dst": "991",
			"type": "incoming", "disposition": "ANSWERED", "duration": 20, "billsec": 9, "wait": 11,
			"record": at.Format("20060102") + "_" + call + ".mp3",
		})
	case "CdrQueue":
		add(map[string]any{
			"src": "09331112233", "dst": "991", "queue": "902", "billsec": "9", "wait": "11", "duration": "20", "agent_wait": "3",
			"disposition": "ANSWERED", "hangup": "agent", "queue_status": "CONTINUE", "record": at.Format("20060102") + "_" + call + ".mp3",
			"answeredtime": at.Add(-9 * time.Second).UTC().Format(layout), "ringtime": at.Add(-12 * time.Second).UTC().Format(layout),
			"starttime": at.Add(-20 * time.Second).UTC().Format(layout), "endtime": stamp,
			"detail": []any{map[string]any{"src": "09331112233", "dst": "991", "billsec": "9", "wait": "3", "disposition": "ANSWERED", "comment": "", "tries": "1"}},
		})
	case "Survey":
		delete(fields, "event_name")
		add(map[string]any{"event": canonical, "src": "991", "dst": "993", "queue": "902", "date": stamp, "point": 5, "label": "MySurvey"})
	case "IncomingFax", "OutgoingFax":
		add(map[string]any{"fax_id": "5f6f162b8a315630478f6ca0", "src": "02191015504", "dst": "2191015504", "state": "SUCCESS", "date": stamp})
	case "VoiceMail":
		add(map[string]any{"id": "5fedc3b31b05af9835bbcfdd", "number": "5555", "state": "SUCCESS", "filename": "5555_message.wav", "duration": "1", "caller": "992", "date": stamp})
	case "VoiceMailEmail":
		add(map[string]any{"id": "5fedc3b31b05af9835bbcfdd", "number": "5555", "state": "SUCCESS", "receiver": "sample@example.com", "active": "True", "attached_file": "False", "date": stamp})
	case "ExtenAdded", "ExtenRemoved":
		add(map[string]any{"exten": "77777", "state": "Unavailable"})
	case "TrunkNewState", "TrunkAdded", "TrunkRemoved":
		add(map[string]any{"trunk_name": "SimotelTrunk", "trunk_type": "SIP", "state": "Ok", "date": float64(at.UnixMilli()) / 1000})
	case "AutoDialerReport":
		delete(fields, "event_name") // the page's sample has none
		add(map[string]any{
			"start": stamp, "end": stamp, "campaign_id": "63e24b3e3ba6c708b7612152", "campaign": "test12", "number": "09153012312",
			"disposition": "ANSWERED", "try": 1, "repeat": 27, "billsec": 5, "wait": 2, "tries": []any{},
		})
	case "ReservedCallInFront":
		add(map[string]any{"event": canonical, "queue_name": "1010", "caller_id": "09123456789", "date": stamp})
	}
	switch canonical {
	case "IncomingCall", "OutgoingCall", "NewState", "Transfer", "Cdr", "CdrQueue", "Survey", "IncomingFax", "OutgoingFax":
		fields["unique_id"] = call
	}
	return canonical, fields, nil
}

// Step is one event of a simulated call, with the fields that differ from Compose's.
type Step struct {
	Event string
	Set   map[string]any
}

// Call is a whole incoming call that is answered (Simotel: order of the pages).
var Call = []Step{
	{Event: "IncomingCall"},
	{Event: "NewState", Set: map[string]any{"state": "Ringing"}},
	{Event: "NewState", Set: map[string]any{"state": "InUse"}},
	{Event: "NewState", Set: map[string]any{"state": "Idle"}},
	{Event: "Cdr"},
}
