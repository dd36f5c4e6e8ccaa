// Package simotel decodes Simotel's event webhooks ("SEA"), versions G2 to Rest4, by GET and POST.
//
// Facts are from Simotel's pages Event Webhooks: Introduction and Settings, and one page an event.
// It must not know how requests arrive or where events go.
package simotel

import (
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Decoder decodes the requests of a Simotel.
type Decoder struct{}

// mapping says how the fields of one event become canonical.
type mapping func(e *event.Event, f wire.Fields, s wire.Settings)

// Names are Simotel's events, as its panel spells them. Names on the wire are compared in any case,
// because its pages write Cdr, CDR and cdr.
var Names = []string{
	"Cdr", "NewState", "IncomingCall", "OutgoingCall", "Transfer", "ExtenAdded", "ExtenRemoved",
	"IncomingFax", "OutgoingFax", "CdrQueue", "VoiceMail", "VoiceMailEmail", "Survey", "Ping",
	"TrunkNewState", "TrunkAdded", "TrunkRemoved", "AutoDialerReport", "ReservedCallInFront",
}

var mappings = map[string]mapping{
	"Cdr":                 cdr,
	"NewState":            newState,
	"IncomingCall":        incomingCall,
	"OutgoingCall":        outgoingCall,
	"Transfer":            transfer,
	"ExtenAdded":          extension(event.ExtensionAdded),
	"ExtenRemoved":        extension(event.ExtensionRemoved),
	"IncomingFax":         fax(event.FaxReceived),
	"OutgoingFax":         fax(event.FaxSent),
	"CdrQueue":            cdrQueue,
	"VoiceMail":           voicemail(event.VoicemailReceived),
	"VoiceMailEmail":      voicemail(event.VoicemailEmailed),
	"Survey":              survey,
	"Ping":                func(e *event.Event, _ wire.Fields, _ wire.Settings) { e.Type = event.Ping },
	"TrunkNewState":       trunk(event.TrunkState),
	"TrunkAdded":          trunk(event.TrunkAdded),
	"TrunkRemoved":        trunk(event.TrunkRemoved),
	"AutoDialerReport":    autoDialerReport,
	"ReservedCallInFront": reservedCall,
}

// spelling finds the panel's spelling of a name in any case.
var spelling = func() map[string]string {
	spellings := map[string]string{}
	for _, name := range Names {
		spellings[strings.ToLower(name)] = name
	}
	return spellings
}()

// Decode makes a canonical event of a request.
func (Decoder) Decode(r *event.Request, s wire.Settings) event.Event {
	e := event.Event{Provider: v1alpha1.Simotel, ReceivedAt: r.ReceivedAt}
	fields, err := wire.Read(r, s)
	if err != nil {
		e.Name = name(wire.Fields{}, r.Path)
		e.Type, e.Reason = event.Unparsed, err.Error()
		return e
	}
	e.Payload = fields.Payload()
	e.Name = name(fields, r.Path)
	switch decode, known := mappings[e.Name]; {
	case known:
		decode(&e, fields, s)
	case fields.Has("app_name"):
		e.NeedsAnswer = "this is a call of a Simotel component API (app_name), which waits for a routing answer that pbxhook cannot give: point Exten API, Trunk API, IVR API and Smart API to your own service, and only Event Webhooks to pbxhook"
	case e.Name != "":
		e.Type = event.Other
		call(&e, fields)
	default:
		e.Type = event.Unparsed
		e.Reason = "expected event_name or event among the fields, or the event's name at the end of the path; got neither"
	}
	return e
}

// name resolves the event's name: event_name, event, the last part of the path, then the shape.
func name(f wire.Fields, path string) string {
	last := wire.LastPart(path)
	for _, candidate := range []string{f.Text("event_name"), f.Text("event"), last} {
		if candidate == "" {
			continue
		}
		plain := strings.ReplaceAll(strings.ToLower(candidate), " ", "") // "New State" on simotel.com
		if known, ok := spelling[plain]; ok {
			return known
		}
		if candidate == last && f.Has("app_name") {
			continue // a component API's own path
		}
		return candidate
	}
	if f.Has("campaign_id") && f.Has("tries") { // the page's sample has no event_name
		return "AutoDialerReport"
	}
	return ""
}

// call starts the event's call, when the request names one.
func call(e *event.Event, f wire.Fields) *event.Call {
	id := f.Text("unique_id", "cuid") // older and newer pages; the wire may carry both, with one value
	if id == "" {
		return nil
	}
	e.Call = &event.Call{ID: id, Queue: f.Text("queue")}
	return e.Call
}

func newState(e *event.Event, f wire.Fields, s wire.Settings) {
	exten, participant := f.Text("exten"), f.Text("participant")
	states := map[string]string{"idle": "idle", "ringing": "ringing", "inuse": "inUse", "pause": "paused", "unavailable": "unavailable"}
	e.Type = event.ExtensionState
	e.Extension = &event.Extension{
		Number: exten, Participant: participant, Queue: f.Text("queue"),
		State: states[strings.ToLower(strings.ReplaceAll(f.Text("state"), " ", ""))],
	}
	c := call(e, f)
	if e.Extension.State == "ringing" {
		e.Type = event.CallRinging
		if c == nil {
			c = &event.Call{}
			e.Call = c
		}
		c.State = event.StateRinging
	}
	if c == nil {
		return
	}
	switch f.Text("direction") { // seen from the extension
	case "in":
		c.From, c.To = s.Party(participant, "", false), s.Party(exten, "", false)
	case "out":
		c.From, c.To = s.Party(exten, "", false), s.Party(participant, "", false)
	}
	if e.Extension.State == "inUse" {
		c.State = event.StateAnswered
	}
}

func incomingCall(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.CallStarted
	if c := call(e, f); c != nil {
		c.State, c.Direction, c.CallType = event.StateStarted, event.Inbound, v1alpha1.CallTypeInbound
		c.From = s.Party(f.Text("number"), "", false)
	}
}

func outgoingCall(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.CallStarted
	if c := call(e, f); c != nil {
		c.State, c.Direction, c.CallType = event.StateStarted, event.Outbound, v1alpha1.CallTypeOutbound
		if f.Text("originated_call_id") != "" {
			c.CallType = v1alpha1.CallTypeClickToCall
		}
		c.To = s.Party(f.Text("number"), "", false)
	}
}

func transfer(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.CallTransferred
	if c := call(e, f); c != nil {
		c.From = s.Party(f.Text("transferred_from"), "", false)
		c.To = s.Party(f.Text("transferred_to"), "", false)
		if by := f.Text("transferer", "transfer"); by != "" { // the table has transfer, the sample transferer
			c.Agents = []event.Agent{{Number: by}}
		}
	}
}

func extension(kind event.Type) mapping {
	return func(e *event.Event, f wire.Fields, _ wire.Settings) {
		e.Type = kind
		e.Extension = &event.Extension{Number: f.Text("exten", "number"), State: strings.ToLower(f.Text("state"))}
	}
}

func trunk(kind event.Type) mapping {
	return func(e *event.Event, f wire.Fields, s wire.Settings) {
		e.Type = kind
		e.Trunk = &event.Trunk{Name: f.Text("trunk_name"), Technology: f.Text("trunk_type"), State: f.Text("state")}
		happened(e, f, s, "date", "last_time")
	}
}

func happened(e *event.Event, f wire.Fields, s wire.Settings, keys ...string) {
	if t := f.Time(s, keys...); t != nil {
		e.Time = *t
	}
}

// record fills what Cdr and CdrQueue share.
func record(c *event.Call, f wire.Fields, s wire.Settings) {
	c.State = event.StateEnded
	c.From, c.To = s.Party(f.Text("src"), "", false), s.Party(f.Text("dst"), "", false)
	c.StartTime = f.Time(s, "starttime", "start_time")
	c.EndTime = f.Time(s, "endtime", "end_time")
	c.AnswerTime = f.Time(s, "answeredtime")
	c.RingTime = f.Time(s, "ringtime")
	c.DurationSeconds, c.TalkSeconds, c.WaitSeconds = f.Int("duration"), f.Int("billsec"), f.Int("wait")
	c.Disposition = disposition(f.Text("disposition"))
	c.Recording = f.Text("record")
}

// disposition: samples have ANSWERED, NO ANSWER, BUSY; the table has Answered, No Answered, Busy.
func disposition(text string) string {
	switch plain := strings.ToLower(strings.ReplaceAll(text, "_", " ")); plain {
	case "answered":
		return "answered"
	case "no answer", "no answered", "noanswer":
		return "noAnswer"
	default:
		return plain
	}
}

func cdr(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.CallEnded
	happened(e, f, s, "endtime", "end_time")
	c := call(e, f)
	if c == nil {
		c = &event.Call{}
		e.Call = c
	}
	record(c, f, s)
	switch strings.ToLower(f.Text("type")) {
	case "incoming":
		c.Direction, c.CallType = event.Inbound, v1alpha1.CallTypeInbound
		if c.Disposition == "noAnswer" || c.Disposition == "busy" {
			e.Type, c.State = event.CallMissed, event.StateMissed
		}
	case "outgoing":
		c.Direction, c.CallType = event.Outbound, v1alpha1.CallTypeOutbound
	case "local", "feature":
		c.Direction, c.CallType = event.Internal, v1alpha1.CallTypeInternal
	}
	if f.Text("originated_call_id") != "" {
		c.CallType = v1alpha1.CallTypeClickToCall
	}
}

func cdrQueue(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.QueueCompleted
	happened(e, f, s, "endtime", "end_time")
	c := call(e, f)
	if c == nil {
		c = &event.Call{Queue: f.Text("queue")}
		e.Call = c
	}
	record(c, f, s)
	c.EndedBy = f.Text("hangup")
	for _, leg := range f.List("detail") {
		if number := wire.AsFields(leg).Text("dst"); number != "" && len(c.Agents) < 100 {
			c.Agents = append(c.Agents, event.Agent{Number: number})
		}
	}
}

func fax(kind event.Type) mapping {
	return func(e *event.Event, f wire.Fields, s wire.Settings) {
		e.Type = kind
		happened(e, f, s, "date")
		detail := f.Object("description", "info")
		e.Fax = &event.Fax{
			ID: f.Text("fax_id"), State: strings.ToLower(f.Text("state")),
			From: s.Party(f.Text("src"), "", false), To: s.Party(f.Text("dst"), "", false),
			Pages: detail.Int("FAXPAGES"), Station: detail.Text("REMOTESTATIONID"),
		}
		if problem := detail.Text("FAXERROR"); problem != "None" { // the text None on success
			e.Fax.Error = problem
		}
		call(e, f)
	}
}

func voicemail(kind event.Type) mapping {
	return func(e *event.Event, f wire.Fields, s wire.Settings) {
		e.Type = kind
		happened(e, f, s, "date")
		e.Voicemail = &event.Voicemail{
			ID: f.Text("id"), Mailbox: f.Text("number"), State: strings.ToLower(f.Text("state")),
			DurationSeconds: f.Int("duration"), File: f.Text("filename"), Caller: f.Text("caller"),
			Message: f.Text("message"), Receiver: f.Text("receiver"),
		}
		call(e, f)
	}
}

func survey(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.SurveyAnswered
	happened(e, f, s, "date")
	e.Survey = &event.Survey{
		Point: f.Int("point"), Label: f.Text("label"), Queue: f.Text("queue"),
		From: s.Party(f.Text("src"), "", false), To: s.Party(f.Text("dst"), "", false),
	}
	call(e, f)
}

func autoDialerReport(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.CampaignReported
	happened(e, f, s, "end", "start")
	e.Campaign = &event.Campaign{
		ID: f.Text("campaign_id"), Name: f.Text("campaign"), Number: f.Text("number"),
		Disposition: disposition(f.Text("disposition")), Try: f.Int("try"), Repeat: f.Int("repeat"),
		TalkSeconds: f.Int("billsec"), WaitSeconds: f.Int("wait"),
	}
	if tries := f.List("tries"); tries != nil {
		e.Campaign.Tries = wire.Marshal(tries)
	}
	call(e, f)
}

func reservedCall(e *event.Event, f wire.Fields, s wire.Settings) {
	e.Type = event.QueueReserved
	happened(e, f, s, "date")
	e.QueueReservation = &event.QueueReservation{Queue: f.Text("queue_name", "queue"), Caller: f.Text("caller_id")}
	call(e, f)
}
