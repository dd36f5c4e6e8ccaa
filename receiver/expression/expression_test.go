package expression_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/expression"
)

func call() *event.Event {
	talk, final := int64(12), false
	start := time.Date(2026, 7, 11, 15, 42, 56, 0, time.UTC)
	return &event.Event{
		Provider: "Acefone", Name: "CallHangup", Type: event.CallEnded, ReceivedAt: start.Add(time.Minute),
		Call: &event.Call{
			ID: "1.2", Queue: "902", CallType: "Inbound", TalkSeconds: &talk, Final: &final, StartTime: &start,
			From:   event.Party{Number: "+919876500014"},
			Agents: []event.Agent{{ID: "7", Name: "Asha"}, {ID: "8"}},
		},
		Payload: json.RawMessage(`{"billsec":"30","n":5,"x":1.5,"none":null,"flow":[{"type":"Agent","time":7}],"o":{"p":"q"},"big":123456789012345678901234567890}`),
	}
}

func TestHolds(t *testing.T) {
	sms := &event.Event{Type: event.SMSReceived, SMS: &event.SMS{Text: "order 7"}}
	for _, tc := range []struct {
		text  string
		event *event.Event
		want  bool
	}{
		{`event.call.talkSeconds > 10`, call(), true},
		{`event.call.talkSeconds > 10.5`, call(), true},
		{`event.call.talkSeconds > 12`, call(), false},
		{`event.call.talkSeconds >= 12 && event.call.talkSeconds <= 12 && 11 < event.call.talkSeconds`, call(), true},
		{`event.call.queue == "902"`, call(), true},
		{`event.call.queue in ["901", "902"]`, call(), true},
		{`event.call.callType == "Inbound" && event.provider == "Acefone" && event.type == "call.ended" && event.event == "CallHangup"`, call(), true},
		{`event.call.from.number.startsWith("+91")`, call(), true},
		{`event.call.from.number.matches("^[+]91")`, call(), true},
		{`event.call.agents.exists(a, a.id == "8" && a.name == "")`, call(), true},
		{`size(event.call.agents) == 2`, call(), true},
		{`event.call.agents[0].name == "Asha"`, call(), true},
		{`event.call.startTime < event.receivedAt`, call(), true},
		{`event.receivedAt - event.call.startTime == duration("60s")`, call(), true},
		{`event.call.startTime.getHours("Asia/Kolkata") == 21`, call(), true},

		// null is neither less nor greater, and equal to itself alone
		{`event.call.waitSeconds > 10`, call(), false},
		{`event.call.waitSeconds < 10`, call(), false},
		{`10 < event.call.waitSeconds`, call(), false},
		{`10 >= event.call.waitSeconds`, call(), false},
		{`event.call.waitSeconds <= event.call.durationSeconds`, call(), false},
		{`event.call.endTime > event.call.startTime`, call(), false},
		{`event.call.endTime < timestamp("2030-01-01T00:00:00Z")`, call(), false},
		{`!(event.call.waitSeconds > 10)`, call(), true},
		{`event.call.waitSeconds == 10`, call(), false},
		{`event.call.waitSeconds != 10`, call(), true},
		{`event.call.waitSeconds == null`, call(), true},
		{`event.call.endTime == null && event.call.startTime != null`, call(), true},
		{`event.payload.none > 3`, call(), false},

		// final: a target that wants lost calls
		{`event.call.final != false`, call(), false},
		{`event.call.final != false`, &event.Event{Call: &event.Call{}}, true},
		{`event.call.final == true`, &event.Event{Call: &event.Call{}}, false},
		{`event.call.final`, &event.Event{Call: &event.Call{}}, false},
		{`event.call.final`, call(), false},

		// all members are there
		{`event.call.queue == ""`, sms, true},
		{`event.call.talkSeconds > 10`, sms, false},
		{`event.sms.text.contains("order")`, sms, true},
		{`event.sms.text.contains("order")`, call(), false},
		{`event.campaign.try > 1 || event.fax.pages > 1 || event.survey.point > 3`, call(), false},
		{`event.extension.state == "" && event.trunk.name == "" && event.voicemail.file == "" && event.queueReservation.queue == "" && event.links.call == "" && event.reason == "" && event.request.body == ""`, call(), true},
		{`has(event.call) && has(event.call.talkSeconds) && has(event.call.queue)`, call(), true},
		{`has(event.sms) || has(event.call.waitSeconds) || has(event.call.recording)`, call(), false},
		{`event.call == event.call && event.call.from != event.call.to`, call(), true},

		// the PBX's own fields
		{`event.payload.n > 4 && event.payload.x < 2`, call(), true},
		{`int(event.payload.billsec) > 10`, call(), true},
		{`has(event.payload.missing)`, call(), false},
		{`has(event.payload.n) && event.payload.o.p == "q"`, call(), true},
		{`event.payload.flow.exists(s, s.type == "Agent" && s.time == 7)`, call(), true},
		{`"n" in event.payload`, call(), true},
		{`size(event.payload) == 0`, sms, true},
		{`dyn(event).call.queue == "902" && dyn(event.call).talkSeconds > 10 && has(dyn(event).call)`, call(), true},
		{`type(event.call) == type(event.call) && type(event) != type(event.call)`, call(), true},
		{`true`, call(), true},
	} {
		t.Run(tc.text, func(t *testing.T) {
			x, err := expression.Compile(tc.text)
			require.NoError(t, err)
			got, err := x.Holds(tc.event)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		`event.call.talkSecnds > 10`:                  "undefined field 'talkSecnds'; did you mean talkSeconds? (line 1, column 11)",
		`event.call.talkSeconds > "10"`:               "> does not go between a number and a text",
		`event.call.talkSeconds`:                      "true or false",
		`event.call.queue = "902"`:                    "equality is ==",
		"event.\n  call.x":                            "line 2",
		``:                                            "the expression ends where more is expected",
		`evnt.call.queue == "902"`:                    "unknown name evnt; did you mean event?",
		`event.call.queue.matches("[")`:               "missing closing ]",
		`event.call.talkSeconds + "x" == "x"`:         "+ does not go between a number and a text",
		strings.Repeat("(", 9_000) + "true":           "recursion",
		`"` + strings.Repeat("x", 20_000) + `" == ""`: "at most 16384 bytes",
	} {
		t.Run(fmt.Sprintf("%.40q", text), func(t *testing.T) {
			_, err := expression.Compile(text)
			require.ErrorContains(t, err, want)
			require.NotContains(t, err.Error(), "\n", "it goes into a condition")
		})
	}
}

// TestCannotBeTold: a genuine error is one, and does not show the event's values.
func TestCannotBeTold(t *testing.T) {
	many := call()
	many.Payload = json.RawMessage(`{"l":[` + strings.TrimSuffix(strings.Repeat("1,", 3_000), ",") + `]}`)
	for text, e := range map[string]*event.Event{
		`event.payload.missing == "x"`:                         call(),
		`event.payload.o.p > 3`:                                call(),
		`event.call.agents[7].name == ""`:                      call(),
		`int(event.payload.o.p) > 3`:                           call(),
		`event.call.waitSeconds + 1 > 3`:                       call(),
		`event.payload.n`:                                      call(),
		`event.payload.l.all(a, event.payload.l.all(b, a==b))`: many, // costs too much
		`10 / (event.call.talkSeconds - 12) > 1`:               call(),
	} {
		t.Run(text, func(t *testing.T) {
			x, err := expression.Compile(text)
			require.NoError(t, err)
			_, err = x.Holds(e)
			require.Error(t, err)
		})
	}
	x, err := expression.Compile(`int(event.call.from.name) > 3`)
	require.NoError(t, err)
	e := call()
	e.Call.From.Name = "a caller's name"
	_, err = x.Holds(e)
	require.Error(t, err)
	require.NotContains(t, err.Error(), e.Call.From.Name)
}

func FuzzHolds(f *testing.F) {
	f.Add(`event.call.talkSeconds > 10 && event.payload.a == "b"`, []byte(`{"a":"b"}`))
	f.Add(`event.payload.all(k, event.payload[k] != null)`, []byte(`{"a":[1,{"b":2.5e300}]}`))
	f.Fuzz(func(t *testing.T, text string, payload []byte) {
		x, err := expression.Compile(text)
		if err != nil {
			return
		}
		e := call()
		if json.Valid(payload) {
			e.Payload = payload
		}
		if holds, err := x.Holds(e); holds && err != nil {
			t.Fatalf("%q holds, and cannot be told: %v", text, err)
		}
	})
}
