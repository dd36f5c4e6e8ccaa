package event_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// TestAppendJSON: what is written by hand is what encoding/json writes. The provider's golden events are
// tried in its own tests.
func TestAppendJSON(t *testing.T) {
	at, pages := time.Date(2026, 3, 4, 5, 6, 7, 891, time.UTC), int64(3)
	for name, e := range map[string]event.Event{
		"empty": {},
		"all kinds": {
			Type: event.FaxReceived, ReceivedAt: at,
			Call:    &event.Call{StartTime: &at, TalkSeconds: &pages, Final: new(bool), Agents: []event.Agent{{ID: "1"}, {Name: "b"}}},
			Fax:     &event.Fax{Pages: &pages, From: event.Party{Name: "a\"\\\n\x01\u2028<&>é\xff"}},
			Payload: json.RawMessage(`{"a":[1,2.50]}`),
		},
		"an empty list": {Call: &event.Call{Agents: []event.Agent{}}},
		"links":         {Links: &event.Links{}, Reason: "why", Request: &event.RawRequest{Body: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := event.JSON(&e)
			require.NoError(t, err)
			require.Equal(t, string(want), string(e.AppendJSON(nil)))
		})
	}
}

// FuzzAppendValue: likewise of what was read from JSON.
func FuzzAppendValue(f *testing.F) {
	for _, seed := range []string{`{"b":[1,2.50,null,true,{}],"a":"x"}`, `"\u2028\u0000\\\"/<é"`, "\"\xff\"", `[]`, `{"\n":1e5}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var value any
		if decoder.Decode(&value) != nil {
			return
		}
		want, err := event.JSON(value)
		require.NoError(t, err)
		require.Equal(t, string(want), string(event.AppendValue(nil, value)))
	})
}
