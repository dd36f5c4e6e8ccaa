package acefone

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/receiver/provider/sim"
)

// Simulator plays calls as Acefone's stock template and those of its siblings send them.
type Simulator struct {
	Get  bool
	Form bool // the panel's Content-Type application/x-www-form-urlencoded
}

// Events are the names of what can be sent.
func (Simulator) Events() []string {
	names := make([]string, len(Triggers))
	for i, t := range Triggers {
		names[i] = t.Name
	}
	return names
}

// Call makes the n-th call. Its id holds the true time, as captures show.
func (Simulator) Call(n int, began time.Time, random *rand.Rand) sim.Call {
	return sim.Call{
		ID: fmt.Sprintf("%d.%06d", began.Unix(), n), Began: began,
		Wait: time.Duration(2+random.IntN(40)) * time.Second, Talk: time.Duration(5+random.IntN(600)) * time.Second,
		Customer: fmt.Sprintf("98765%05d", random.IntN(100_000)), Own: "9000007179",
		Agents: []sim.Agent{{ID: "0502141810358", Name: "Asha Rao", Number: "+919876500010"}, {ID: "0502141810359", Name: "Dev Nair", Number: "+919876500017"}},
	}
}

// Scenarios are the calls that can be played.
func (Simulator) Scenarios() []sim.Scenario { return scenarios }

// Quirks are those of captures and of the siblings' panels.
func (Simulator) Quirks() []sim.Quirk { return quirks }

func at(t time.Time) string { return t.Format(time.DateTime) } // in the zone chosen in the panel

func text(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// Message composes one trigger of a call. All values of the template are text.
func (s Simulator) Message(c *sim.Call, step sim.Step) (sim.Message, error) {
	found := named(step.Event)
	if found == nil {
		return sim.Message{}, fmt.Errorf("expected one of Acefone's triggers (%s), got %q", strings.Join(s.Events(), ", "), step.Event)
	}
	when := c.At(step.At)
	m := sim.Message{Event: found.Name, Path: found.Path, Fields: fields(found.Name, c, when), Style: sim.JSON, At: when}
	if step.Change != nil {
		step.Change(c, &m.Fields)
	}
	switch {
	case s.Get:
		m.Style = sim.Query
	case s.Form:
		m.Style = sim.Form
	}
	return m, nil
}

// leg makes a uuid, which differs from one trigger of a call to the next.
func leg(name string, c *sim.Call) string {
	return fmt.Sprintf("%08x%05x", c.Began.Unix(), len(name)*7919%0xfffff)
}

func fields(name string, c *sim.Call, when time.Time) sim.Fields {
	f := sim.Of("uuid", leg(name, c), "call_to_number", c.Own, "caller_id_number", c.Customer, "start_stamp", at(c.Began))
	circle := sim.Of("operator", "Idea", "circle", "Mumbai")
	switch name {
	case "CallMissed", "CallHangup", "CallMissedOrAnswered":
		return hangup(name, c, f, circle)
	case "CallAnsweredByCustomer": // captures have no call_id
		outbound("click_to_call")(c, &f)
		return append(f, sim.Of("answered_agent_number", sim.Of("follow_me_number", c.Agents[0].Number, "id", c.Agents[0].ID, "name", c.Agents[0].Name),
			"call_status", "Answered by customer", "customer_ring_time", text(c.Wait))...)
	case "DTMFOption": // Servetel: these five
		return sim.Of("uuid", leg(name, c), "call_to_number", c.Own, "caller_id_number", c.Customer, "call_id", c.ID, "digit_pressed", "3", "date", at(when))
	}
	f = append(f, sim.Of("call_id", c.ID, "billing_circle", circle, "customer_no_with_prefix ", "+91"+c.Customer)...) // the stock key ends with a space
	switch name {
	case "CallAnsweredOnIVR":
		return append(f, sim.Of("ivr_id", 59726, "ivr_name", "Main")...)
	case "CallAnsweredOnCallQueue":
		return append(f, sim.Of("queue_name", "Sales", "answer_stamp", at(when))...)
	case "CallAnsweredByExtension":
		return append(f, sim.Of("answer_agent_number", c.Agents[0].Number, "call_status", "Answered by agent", "direction", "inbound", "answer_stamp", at(when))...)
	}
	return f
}

// hangup is the full template, as captures of Smartflo and Acefone India have it.
func hangup(name string, c *sim.Call, f, circle sim.Fields) sim.Fields {
	f = append(f, sim.Of(
		"answer_stamp", at(c.At(sim.Answered)), "end_stamp", at(c.At(sim.Ended)), "billsec", text(c.Talk), "digits_dialed", "3", "direction", "inbound",
		"duration", text(c.Lasted()), "answered_agent", person(c.Agents[0]), "answered_agent_name", c.Agents[0].Name, "answered_agent_number", c.Agents[0].Number,
		"missed_agent", "", "call_flow", []any{
			sim.Of("type", "init", "value", c.ID, "time", strconv.FormatInt(c.Began.Unix(), 10)),
			sim.Of("type", "IVR", "id", "59726", "name", "Main", "time", int(c.Began.Unix()+1)),
			sim.Of("type", "Agent", "id", c.Agents[0].ID, "name", c.Agents[0].Name, "num", c.Agents[0].Number, "dialst", "Answered", "time", sim.Number(fmt.Sprintf("%d.211", c.At(sim.Answered).Unix()))),
			sim.Of("type", "hangup", "time", int(c.At(sim.Ended).Unix())),
		},
		"broadcast_lead_fields", "", "recording_url", "https://recordings.example.com/file/recording?callId="+c.ID+"&type=rec&token=simulated", "call_status", "answered",
		"call_id", c.ID, "outbound_sec", text(c.Talk), "agent_ring_time", text(c.Wait/2), "billing_circle", circle, "call_connected", "1",
		"customer_no_with_prefix ", "+91"+c.Customer, "hangup_cause", "disconnected_by_caller", "hangup_cause_code", "16", "hangup_cause_key", "NORMAL_CLEARING", "ref_id", "",
	)...)
	if name == "CallMissed" {
		missed(c, &f)
	}
	return f
}

func person(a sim.Agent) sim.Fields {
	return sim.Of("id", a.ID, "name", a.Name, "number", a.Number)
}

// missed turns the record of an answered call into that of a missed one, which has a recording too.
func missed(c *sim.Call, f *sim.Fields) {
	for key, value := range map[string]any{
		"answer_stamp": "", "end_stamp": at(c.At(sim.Answered)), "billsec": "0", "duration": text(c.Wait), "outbound_sec": "0", "call_connected": "0",
		"answered_agent": "", "answered_agent_name": "", "answered_agent_number": "", "call_status": "missed", "hangup_cause": "NormalClearing",
		"missed_agent": []any{sim.Of("id", c.Agents[0].ID, "name", c.Agents[0].Name, "number", c.Agents[0].Number, "agent_number", c.Agents[0].Number)},
	} {
		f.Set(key, value)
	}
}

// outbound turns a call round: the customer is called, from the DID.
func outbound(direction string) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		f.Set("call_to_number", c.Customer)
		f.Set("caller_id_number", c.Own)
		f.Set("direction", direction)
	}
}

// transferred is the record of a call with two agents.
func transferred(c *sim.Call, f *sim.Fields) {
	second := person(c.Agents[1])
	second.Set("is_transferred_agent", "Yes")
	first := person(c.Agents[0])
	first.Set("is_transferred_agent", "No")
	f.Set("answered_agent", []any{first, second})
}

// throughQueue is the record of a call that waited in a queue.
func throughQueue(c *sim.Call, f *sim.Fields) {
	f.Set("queue_name", "Sales")
	flow, _ := f.Get("call_flow").([]any)
	f.Set("call_flow", slices.Insert(slices.Clone(flow), 1, any(sim.Of("type", "Inbound Queue", "id", "15621", "name", "Sales", "dept_dialst", "Answered", "time", int(c.Began.Unix())))))
}

var scenarios = []sim.Scenario{
	{Name: "answered", About: "an incoming call that an extension answers", Steps: []sim.Step{
		{Event: "CallReceivedOnServer"},
		{Event: "DialedOnExtensions", At: sim.Rang},
		{Event: "CallAnsweredByExtension", At: sim.Answered},
		{Event: "CallHangup", At: sim.Ended},
	}},
	{Name: "missed", About: "an incoming call that nobody answers", Steps: []sim.Step{
		{Event: "CallReceivedOnServer"},
		{Event: "DialedOnExtensions", At: sim.Rang},
		{Event: "CallMissed", At: sim.Answered},
	}},
	{Name: "missed-or-answered", About: "the one trigger for both, first missed, then answered", Steps: []sim.Step{
		{Event: "CallMissedOrAnswered", At: sim.Answered, Change: missed},
		{Event: "CallMissedOrAnswered", At: sim.Ended},
	}},
	{Name: "dtmf", About: "a caller who chooses in an IVR", Steps: []sim.Step{
		{Event: "CallReceivedOnServer"},
		{Event: "CallAnsweredOnIVR", At: sim.Rang},
		{Event: "DTMFOption", At: sim.Rang},
		{Event: "CallAnsweredByExtension", At: sim.Answered},
		{Event: "CallHangup", At: sim.Ended},
	}},
	{Name: "queued", About: "a call through a ring group and a queue", Steps: []sim.Step{
		{Event: "CallReceivedOnServer"},
		{Event: "CallAnsweredOnRingGroup", At: sim.Rang},
		{Event: "CallAnsweredOnCallQueue", At: sim.Rang},
		{Event: "DialedOnExtensions", At: sim.Rang},
		{Event: "CallAnsweredByExtension", At: sim.Answered},
		{Event: "CallHangup", At: sim.Ended, Change: throughQueue},
	}},
	{Name: "transferred", About: "a call that an agent hands to another", Steps: []sim.Step{
		{Event: "CallReceivedOnServer"},
		{Event: "CallAnsweredByExtension", At: sim.Answered},
		{Event: "CallHangup", At: sim.Ended, Change: transferred},
	}},
	{Name: "outgoing", About: "a call to the outside", Steps: []sim.Step{
		{Event: "CallReceivedOnServer", Change: outbound("outbound")},
		{Event: "CallHangup", At: sim.Ended, Change: outbound("outbound")},
	}},
	{Name: "click-to-call", About: "a call that begins in the browser", Steps: []sim.Step{
		{Event: "CallAnsweredByExtension", At: sim.Rang, Change: outbound("click_to_call")},
		{Event: "CallAnsweredByCustomer", At: sim.Answered, Change: outbound("click_to_call")},
		{Event: "CallHangup", At: sim.Ended, Change: outbound("clicktocall")},
	}},
}

var stamps = []string{"start_stamp", "answer_stamp", "end_stamp", "date"}

// restamp writes the times of a message in another way.
func restamp(m *sim.Message, c *sim.Call, format func(time.Time) string) {
	for _, key := range stamps {
		if text, ok := m.Fields.Get(key).(string); ok && text != "" {
			if t, err := time.ParseInLocation(time.DateTime, text, c.Began.Location()); err == nil {
				m.Fields.Set(key, format(t))
			}
		}
	}
}

var quirks = []sim.Quirk{
	{Name: "one-url", About: "all triggers at one URL: the fields alone tell them", Change: func(m *sim.Message, _ *sim.Call) { m.Path = "" }},
	{Name: "unresolved-variables", About: "variables of the template that Acefone had nothing for arrive literally", Change: func(m *sim.Message, _ *sim.Call) {
		for i, field := range m.Fields {
			if field.Value == "" {
				m.Fields[i].Value = "$" + field.Key
			}
		}
		for _, key := range []string{"campaign_name", "campaign_id", "recording_name", "agent_transfer_ring_time"} {
			m.Fields.Set(key, "$"+key)
		}
	}},
	{Name: "other-keys", About: "the customer's number under the key of another tenant, and the DID under its own", Change: func(m *sim.Message, c *sim.Call) {
		m.Fields.Rename("customer_no_with_prefix ", "customer_number_with_prefix")
		m.Fields.Set("did_number", c.Own)
	}},
	{Name: "json-text", About: "objects and lists as JSON text, as in a form", Change: func(m *sim.Message, _ *sim.Call) {
		for i, field := range m.Fields {
			switch value := field.Value.(type) {
			case sim.Fields:
				m.Fields[i].Value = value.Encode(sim.JSON)
			case []any:
				text := sim.Of("list", value).Encode(sim.JSON)
				m.Fields[i].Value = strings.TrimSuffix(strings.TrimPrefix(text, `{"list":`), "}")
			}
		}
	}},
	{Name: "dialer", About: "the dialler's dialect: US dates, direction Dialer (inbound), agents as a list, no billsec", Change: func(m *sim.Message, c *sim.Call) {
		restamp(m, c, func(t time.Time) string { return t.Format("1/2/2006, 3:04:05 PM") })
		if direction, ok := m.Fields.Get("direction").(string); ok && !strings.Contains(direction, "click") {
			m.Fields.Set("direction", "Dialer ("+direction+")")
		}
		if agent, ok := m.Fields.Get("answered_agent").(sim.Fields); ok {
			m.Fields.Set("answered_agent", []any{agent})
		}
		if m.Fields.Get("billsec") != nil {
			m.Fields.Set("billsec", "")
		}
	}},
	{Name: "epoch", About: "times as Epoch/Unix, as Acefone India's panel offers", Change: func(m *sim.Message, c *sim.Call) {
		restamp(m, c, func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) })
	}},
	{Name: "iso", About: "times as ISO 8601, as Acefone India's panel offers", Change: func(m *sim.Message, c *sim.Call) {
		restamp(m, c, func(t time.Time) string { return t.Format(time.RFC3339) })
	}},
	{Name: "sibling", About: "the triggers' names as Smartflo and Servetel have them", Change: func(m *sim.Message, _ *sim.Call) {
		if t := named(m.Event); m.Path != "" && len(t.Also) > 0 {
			m.Path = t.Also[0]
		}
	}},
	{Name: "template-keys", About: "keys that the customer wrote in another way: $call_id, callStatus, start-stamp", Change: templateKeys},
	sim.Placeholders,
	sim.Charset,
	sim.Gzip,
	sim.Duplicates,
	sim.OutOfOrder,
}

// templateKeys spells keys as customers' templates have them.
func templateKeys(m *sim.Message, _ *sim.Call) {
	for i, field := range m.Fields {
		switch key := strings.TrimSpace(field.Key); i % 3 {
		case 0:
			m.Fields[i].Key = "$" + key
		case 1:
			m.Fields[i].Key = strings.ReplaceAll(key, "_", "-")
		default:
			words := strings.Split(key, "_")
			for n := 1; n < len(words); n++ {
				words[n] = strings.ToUpper(words[n][:1]) + words[n][1:]
			}
			m.Fields[i].Key = strings.Join(words, "")
		}
	}
}
