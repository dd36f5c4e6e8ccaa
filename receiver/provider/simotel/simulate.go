package simotel

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/provider/sim"
)

// Simulator plays calls as a Simotel of one version and method sends them.
type Simulator struct {
	Version v1alpha1.Version // empty: Rest4
	Get     bool
}

// Events are the names of what can be sent.
func (Simulator) Events() []string { return Catalog.Names() }

// Call makes the n-th call.
func (Simulator) Call(n int, began time.Time, random *rand.Rand) sim.Call {
	return sim.Call{
		ID: fmt.Sprintf("%d.%d", began.Unix(), n), Began: began,
		Wait: time.Duration(2+random.IntN(40)) * time.Second, Talk: time.Duration(5+random.IntN(600)) * time.Second,
		Customer: fmt.Sprintf("09%09d", 120_000_000+random.IntN(80_000_000)), Own: "to_simo_51_20",
		Agents: []sim.Agent{{Number: strconv.Itoa(991 + n%3)}, {Number: strconv.Itoa(994 + n%3)}},
	}
}

// Scenarios are the calls that can be played (Simotel: order of the pages; no event has a number that
// would tell it).
func (Simulator) Scenarios() []sim.Scenario { return scenarios }

// Quirks are those of Simotel's pages and versions.
func (Simulator) Quirks() []sim.Quirk { return quirks }

// at is how Simotel writes a time: with six digits of a second and no offset.
func at(t time.Time) string { return t.Format("2006-01-02 15:04:05.000000") }

func seconds(d time.Duration) int { return int(d / time.Second) }

// epoch is how trunk events write a time.
func epoch(t time.Time) sim.Number {
	return sim.Number(fmt.Sprintf("%d.%07d", t.Unix(), t.Nanosecond()/100))
}

// id is 24 hexadecimal digits, as Simotel's database makes them.
func id(c *sim.Call, what string) string {
	text := fmt.Sprintf("%08x%x", c.Began.Unix(), what+c.ID)
	return (text + strings.Repeat("0", 24))[:24]
}

// Message composes one event of a call, in the order of fields of its page's sample.
func (s Simulator) Message(c *sim.Call, step sim.Step) (sim.Message, error) {
	event := Catalog.Find(step.Event)
	if event == nil {
		return sim.Message{}, fmt.Errorf("expected one of Simotel's events (%s), got %q", strings.Join(Catalog.Names(), ", "), step.Event)
	}
	when := c.At(step.At)
	m := sim.Message{Event: event.Name, Fields: fields(event.Name, c, when), Style: s.style(), At: when}
	if step.Change != nil {
		step.Change(c, &m.Fields)
	}
	switch {
	case s.Version == "" || s.Version == v1alpha1.Rest4:
		m.Path = event.Name
	case strings.HasPrefix(string(s.Version), "Rest"):
		m.Path = strings.ToLower(event.Name) // Simotel: Introduction and Settings, "Call <address>/newstate"
	}
	return m, nil
}

// style: version 4 posts JSON, those before parameters.
func (s Simulator) style() sim.Style {
	switch {
	case s.Get:
		return sim.Query
	case s.Version == "" || strings.HasSuffix(string(s.Version), "4"):
		return sim.SpacedJSON
	default:
		return sim.Form
	}
}

func fields(name string, c *sim.Call, when time.Time) sim.Fields {
	record := c.Began.Format("20060102") + "_" + c.ID + ".mp3"
	agent := c.Agents[0].Number
	switch name {
	case "NewState":
		return sim.Of("event_name", name, "exten", agent, "state", "Ringing", "participant", c.Customer, "direction", "in", "unique_id", c.ID, "dialer", "no")
	case "IncomingCall":
		return sim.Of("event_name", name, "number", c.Customer, "unique_id", c.ID, "entry_point", c.Own)
	case "OutgoingCall":
		return sim.Of("event_name", name, "number", c.Customer, "unique_id", c.ID, "outgoing_point", c.Own)
	case "Transfer":
		return sim.Of("event_name", name, "unique_id", c.ID, "transferer", agent, "transferred_from", c.Customer, "transferred_to", c.Agents[1].Number)
	case "ExtenAdded", "ExtenRemoved":
		return sim.Of("event_name", name, "exten", agent, "state", "Unavailable")
	case "IncomingFax":
		return sim.Of(
			"fax_id", id(c, name), "entry_point", c.Own, "unique_id", c.ID, "date", at(when),
			"description", sim.Of(
				"REMOTESTATIONID", "unknown", "FAXRESOLUTION", "8031x3850", "FAXBITRATE", "14400", "FAXERROR", "None",
				"FAXSTATUS", "SUCCESS", "FAXPAGES", "1", "FAXSTATUSSTRING", "OK",
			),
			"event_name", name, "src", c.Customer, "state", "SUCCESS", "dst", agent,
		)
	case "OutgoingFax":
		return sim.Of(
			"fax_id", id(c, name), "event_name", name, "state", "SENDING", "unique_id", c.ID,
			"info", sim.Of(
				"FAXSTATUS", "FAILED", "FAXSTATUSSTRING", "error starting fax session", "FAXERROR", "INIT_ERROR", "REMOTESTATIONID", nil,
				"FAXPAGES", "0", "FAXBITRATE", nil, "FAXRESOLUTION", nil, "REASON", "",
			),
			"date", at(when),
		)
	case "CdrQueue": // every number is a text
		wait, talk := strconv.Itoa(seconds(c.Wait)), strconv.Itoa(seconds(c.Talk))
		return sim.Of(
			"event_name", name, "unique_id", c.ID, "src", c.Customer, "dst", agent, "queue", "902", "billsec", talk, "wait", wait,
			"duration", strconv.Itoa(seconds(c.Lasted())), "agent_wait", wait, "disposition", "ANSWERED", "hangup", "agent",
			"queue_status", "CONTINUE", "record", record, "answeredtime", at(c.At(sim.Answered)), "ringtime", at(c.At(sim.Rang)),
			"starttime", at(c.Began), "endtime", at(c.At(sim.Ended)),
			"detail", []any{sim.Of("src", c.Customer, "dst", agent, "billsec", talk, "wait", wait, "disposition", "ANSWERED", "comment", "", "tries", "1")},
		)
	case "VoiceMail":
		return sim.Of("event_name", name, "id", id(c, "VoiceMail"), "number", "5555", "state", "SUCCESS", "date", at(when), "filename", "5555_"+c.ID+"-vm-record.wav", "duration", "7", "caller", c.Customer)
	case "VoiceMailEmail":
		return sim.Of("event_name", name, "id", id(c, "VoiceMail"), "number", "5555", "state", "SUCCESS", "date", at(when), "receiver", "desk@example.com", "active", "True", "attached_file", "False")
	case "Survey":
		return sim.Of("event", name, "unique_id", c.ID, "src", c.Customer, "dst", agent, "queue", "902", "date", at(when), "point", 5, "label", "MySurvey")
	case "Cdr": // the sample of an answered call has no duration
		return sim.Of(
			"event_name", name, "starttime", at(c.Began), "endtime", at(c.At(sim.Ended)), "src", c.Customer, "dst", agent, "type", "incoming",
			"disposition", "ANSWERED", "billsec", seconds(c.Talk), "wait", seconds(c.Wait), "record", record, "unique_id", c.ID,
		)
	case "TrunkNewState", "TrunkAdded":
		return sim.Of("event_name", name, "state", "Ok", "last_time", epoch(c.Began), "trunk_name", c.Own, "trunk_type", "SIP", "last_time_sec", 0, "date", epoch(when))
	case "TrunkRemoved":
		return sim.Of("event_name", name, "trunk_name", c.Own, "date", epoch(when))
	case "AutoDialerReport": // its sample names no event
		return sim.Of(
			"start", at(c.Began), "end", c.At(sim.Ended).Format(time.DateTime), "campaign_id", id(c, name), "campaign", "test12",
			"interface_context", "1111", "interface_text", "2222", "number", c.Customer, "disposition", "ANSWERED", "try", 1, "repeat", 27,
			"billsec", seconds(c.Talk), "wait", seconds(c.Wait),
			"tries", []any{sim.Of(
				"cdr_id", id(c, "try"), "cause", "16", "cause-txt", "Normal Clearing", "starttime", c.Began.Format(time.DateTime), "disposition", "ANSWERED", "wait", seconds(c.Wait),
			)},
		)
	case "ReservedCallInFront":
		return sim.Of("event_name", name, "event", name, "queue_name", "1010", "caller_id", c.Customer, "date", at(when))
	default: // Ping: nothing but its name is known
		return sim.Of("event_name", name)
	}
}

// newStateOf is a NewState of the n-th agent.
func newStateOf(n int, state string, pairs ...any) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		f.Set("exten", c.Agents[n].Number)
		f.Set("state", state)
		if state == "Idle" { // the sample has exten, state and unique_id alone
			f.Delete("participant", "direction", "dialer")
		}
		sim.With(pairs...)(c, f)
	}
}

// unanswered is the record of a call that nobody took: no recording, and duration in place of billsec.
func unanswered(disposition string) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		f.Set("disposition", disposition)
		f.Delete("record")
		f.Rename("billsec", "duration")
		f.Set("duration", seconds(c.Wait))
		f.Set("endtime", at(c.At(sim.Answered)))
	}
}

// outgoing turns the record of an incoming call round.
func outgoing(kind string, pairs ...any) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		f.Set("type", kind)
		f.Set("src", c.Agents[0].Number)
		f.Set("dst", c.Customer)
		sim.With(pairs...)(c, f)
	}
}

// byClick marks a call that Simotel's API originated.
func byClick(change func(*sim.Call, *sim.Fields)) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		change(c, f)
		f.Set("originated_call_id", "orig.call."+c.ID)
	}
}

// twoLegs is the record of a queue that tried a second agent after the first.
func twoLegs(c *sim.Call, f *sim.Fields) {
	leg := func(n int, disposition, billsec string) sim.Fields {
		return sim.Of("src", c.Customer, "dst", c.Agents[n].Number, "billsec", billsec, "wait", "1", "disposition", disposition, "comment", "", "tries", "1")
	}
	f.Set("dst", c.Agents[1].Number)
	f.Set("detail", []any{leg(0, "NO ANSWER", "0"), leg(1, "ANSWERED", strconv.Itoa(seconds(c.Talk)))})
}

func toSecond(c *sim.Call, f *sim.Fields) { f.Set("dst", c.Agents[1].Number) }

var queued = []sim.Step{
	{Event: "IncomingCall"},
	{Event: "NewState", At: sim.Rang, Change: newStateOf(0, "Ringing", "queue", "902")},
	{Event: "NewState", At: sim.Rang, Change: newStateOf(0, "Idle")},
	{Event: "NewState", At: sim.Rang, Change: newStateOf(1, "Ringing", "queue", "902")},
	{Event: "NewState", At: sim.Answered, Change: newStateOf(1, "InUse", "queue", "902")},
	{Event: "NewState", At: sim.Ended, Change: newStateOf(1, "Idle")},
	{Event: "Cdr", At: sim.Ended, Change: toSecond},
	{Event: "CdrQueue", At: sim.Ended, Change: twoLegs},
}

var scenarios = []sim.Scenario{
	{Name: "answered", About: "an incoming call that is answered", Steps: []sim.Step{
		{Event: "IncomingCall"},
		{Event: "NewState", At: sim.Rang},
		{Event: "NewState", At: sim.Answered, Change: newStateOf(0, "InUse")},
		{Event: "NewState", At: sim.Ended, Change: newStateOf(0, "Idle")},
		{Event: "Cdr", At: sim.Ended},
	}},
	{Name: "missed", About: "an incoming call that nobody answers", Steps: []sim.Step{
		{Event: "IncomingCall"},
		{Event: "NewState", At: sim.Rang},
		{Event: "NewState", At: sim.Answered, Change: newStateOf(0, "Idle")},
		{Event: "Cdr", At: sim.Answered, Change: unanswered("NO ANSWER")},
	}},
	{Name: "busy", About: "an incoming call to a busy extension", Steps: []sim.Step{
		{Event: "IncomingCall"},
		{Event: "Cdr", At: sim.Answered, Change: unanswered("BUSY")},
	}},
	{Name: "transferred", About: "a call that an agent hands to another", Steps: []sim.Step{
		{Event: "IncomingCall"},
		{Event: "NewState", At: sim.Rang},
		{Event: "NewState", At: sim.Answered, Change: newStateOf(0, "InUse")},
		{Event: "Transfer", At: sim.Talking},
		{Event: "NewState", At: sim.Talking, Change: newStateOf(0, "Idle")},
		{Event: "NewState", At: sim.Talking, Change: newStateOf(1, "Ringing")},
		{Event: "NewState", At: sim.Talking, Change: newStateOf(1, "InUse")},
		{Event: "NewState", At: sim.Ended, Change: newStateOf(1, "Idle")},
		{Event: "Cdr", At: sim.Ended, Change: toSecond},
	}},
	{Name: "queued", About: "a queue that tries two agents", Steps: queued},
	{Name: "survey", About: "a queued call with the caller's rating", Steps: append(queued[:len(queued):len(queued)], sim.Step{Event: "Survey", At: sim.Ended, Change: func(c *sim.Call, f *sim.Fields) { f.Set("dst", c.Agents[1].Number) }})},
	{Name: "reserved", About: "a caller who leaves a queue and keeps the place", Steps: []sim.Step{
		{Event: "IncomingCall"},
		{Event: "ReservedCallInFront", At: sim.Rang},
		{Event: "Cdr", At: sim.Answered, Change: unanswered("NO ANSWER")},
	}},
	{Name: "outgoing", About: "a call to the outside", Steps: []sim.Step{
		{Event: "OutgoingCall"},
		{Event: "NewState", Change: newStateOf(0, "InUse", "direction", "out")},
		{Event: "NewState", At: sim.Ended, Change: newStateOf(0, "Idle")},
		{Event: "Cdr", At: sim.Ended, Change: outgoing("outgoing")},
	}},
	{Name: "click-to-call", About: "a call that Simotel's API originates", Steps: []sim.Step{
		{Event: "OutgoingCall", Change: byClick(sim.With())},
		{Event: "NewState", Change: newStateOf(0, "InUse", "direction", "out")},
		{Event: "NewState", At: sim.Ended, Change: newStateOf(0, "Idle")},
		{Event: "Cdr", At: sim.Ended, Change: byClick(outgoing("outgoing"))},
	}},
	{Name: "internal", About: "one extension calls another", Steps: []sim.Step{
		{Event: "NewState", At: sim.Rang, Change: func(c *sim.Call, f *sim.Fields) { newStateOf(1, "Ringing", "participant", c.Agents[0].Number)(c, f) }},
		{Event: "NewState", At: sim.Answered, Change: func(c *sim.Call, f *sim.Fields) { newStateOf(1, "InUse", "participant", c.Agents[0].Number)(c, f) }},
		{Event: "NewState", At: sim.Ended, Change: newStateOf(1, "Idle")},
		{Event: "Cdr", At: sim.Ended, Change: func(c *sim.Call, f *sim.Fields) { outgoing("local", "dst", c.Agents[1].Number)(c, f) }},
	}},
	{Name: "voicemail", About: "a caller who leaves a message", Steps: []sim.Step{
		{Event: "IncomingCall"},
		{Event: "VoiceMail", At: sim.Ended},
		{Event: "VoiceMailEmail", At: sim.Ended},
		{Event: "Cdr", At: sim.Ended, Change: sim.With("dst", "5555")},
	}},
	{Name: "fax", About: "a fax comes in, another one fails to go out", Steps: []sim.Step{
		{Event: "IncomingFax", At: sim.Answered},
		{Event: "OutgoingFax", At: sim.Ended},
	}},
	{Name: "campaign", About: "the automatic dialler reports a number", Steps: []sim.Step{
		{Event: "AutoDialerReport", At: sim.Ended},
	}},
	{Name: "exchange", About: "extensions and trunks come, change and go", Steps: []sim.Step{
		{Event: "Ping"},
		{Event: "ExtenAdded"},
		{Event: "NewState", Change: func(_ *sim.Call, f *sim.Fields) {
			f.Set("state", "Unavailable")
			f.Delete("participant", "direction", "unique_id", "dialer")
		}},
		{Event: "NewState", Change: func(_ *sim.Call, f *sim.Fields) {
			f.Set("state", "Pause")
			f.Delete("participant", "direction", "unique_id", "dialer")
		}},
		{Event: "ExtenRemoved"},
		{Event: "TrunkAdded"},
		{Event: "TrunkNewState", Change: sim.With("state", "Unavailable")},
		{Event: "TrunkRemoved"},
	}},
}

var quirks = []sim.Quirk{
	{Name: "invalid-json", About: "bodies as the manual prints them: numbers with leading zeros and no quotes, Python's None and single quotes", Change: invalidJSON},
	{Name: "cuid", About: "cuid in place of unique_id, as newer pages write", Change: func(m *sim.Message, _ *sim.Call) { m.Fields.Rename("unique_id", "cuid") }},
	{Name: "both-ids", About: "unique_id and cuid, with one value", Change: func(m *sim.Message, _ *sim.Call) {
		if id := m.Fields.Get("unique_id"); id != nil {
			m.Fields.Set("cuid", id)
		}
	}},
	{Name: "table-names", About: "the keys and words of the manual's tables where its samples have others", Change: tableNames},
	{Name: "any-case", About: "event names in the case of the manual's texts: CDR, newstate", Change: anyCase},
	{Name: "post-query", About: "a POST with its parameters in the URL", Change: func(m *sim.Message, _ *sim.Call) {
		if m.Style == sim.Form {
			m.Style = sim.Query
		}
	}},
	sim.Wrapped,
	sim.Placeholders,
	sim.Charset,
	sim.Gzip,
	sim.Duplicates,
	sim.OutOfOrder,
}

func invalidJSON(m *sim.Message, _ *sim.Call) {
	if m.Style != sim.SpacedJSON {
		return
	}
	m.Style = sim.BareZeros
	switch m.Event {
	case "OutgoingFax", "Survey", "AutoDialerReport":
		m.Style = sim.Python
	}
}

func tableNames(m *sim.Message, _ *sim.Call) {
	m.Fields.Rename("starttime", "start_time")
	m.Fields.Rename("endtime", "end_time")
	switch m.Event {
	case "Transfer":
		m.Fields.Rename("transferer", "transfer")
	case "ExtenRemoved":
		m.Fields.Rename("exten", "number")
	case "OutgoingCall":
		m.Fields.Rename("outgoing_point", "entry_point")
	case "Cdr":
		words := map[any]string{"ANSWERED": "Answered", "NO ANSWER": "No Answered", "BUSY": "Busy"}
		m.Fields.Set("disposition", words[m.Fields.Get("disposition")])
	}
}

func anyCase(m *sim.Message, _ *sim.Call) {
	m.Path = strings.ToLower(m.Path)
	for _, key := range []string{"event_name", "event"} {
		if m.Fields.Get(key) == "Cdr" {
			m.Fields.Set(key, "CDR")
		} else if name, ok := m.Fields.Get(key).(string); ok {
			m.Fields.Set(key, strings.ToLower(name))
		}
	}
}
