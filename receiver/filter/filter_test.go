package filter_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/filter"
)

func TestWants(t *testing.T) {
	for name, tc := range map[string]struct {
		spec  v1alpha1.PBXWebhookSpec
		event event.Event
		want  bool
	}{
		"nothing set":                {event: event.Event{Name: "Cdr"}, want: true},
		"event named":                {spec: v1alpha1.PBXWebhookSpec{Events: []string{"Cdr"}}, event: event.Event{Name: "Cdr"}, want: true},
		"event not named":            {spec: v1alpha1.PBXWebhookSpec{Events: []string{"Cdr"}}, event: event.Event{Name: "NewState"}},
		"event of a category":        {spec: v1alpha1.PBXWebhookSpec{Provider: "VoIPstudio", Events: []string{"CallStateChange"}}, event: event.Event{Name: "call.hold"}, want: true},
		"event of another category":  {spec: v1alpha1.PBXWebhookSpec{Provider: "VoIPstudio", Events: []string{"CallEnded"}}, event: event.Event{Name: "call.hold"}},
		"a trigger told from fields": {spec: v1alpha1.PBXWebhookSpec{Provider: "Acefone", Events: []string{"CallMissedOrAnswered"}}, event: event.Event{Name: "CallMissed"}, want: true},
		"unparsed passes":            {spec: v1alpha1.PBXWebhookSpec{Events: []string{"Cdr"}}, event: event.Event{Type: event.Unparsed}, want: true},
		"call type":                  {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{CallTypes: []v1alpha1.CallType{"Inbound"}}}, event: event.Event{Call: &event.Call{CallType: "Inbound"}}, want: true},
		"another call type":          {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{CallTypes: []v1alpha1.CallType{"Inbound"}}}, event: event.Event{Call: &event.Call{CallType: "Internal"}}},
		"call type of no call":       {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{CallTypes: []v1alpha1.CallType{"Inbound"}}}, event: event.Event{}},
		"number, written otherwise":  {spec: v1alpha1.PBXWebhookSpec{DefaultRegion: "GB", Filter: &v1alpha1.Filter{Numbers: []string{"+442035141598"}}}, event: event.Event{Call: &event.Call{Direction: "inbound", To: event.Party{Raw: "020 3514 1598"}}}, want: true},
		"number of the caller":       {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Numbers: []string{"+442035141598"}}}, event: event.Event{Call: &event.Call{Direction: "inbound", From: event.Party{Raw: "+442035141598"}}}},
		"own number of an outbound":  {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Numbers: []string{"+442035141598"}}}, event: event.Event{Call: &event.Call{Direction: "outbound", From: event.Party{Raw: "+442035141598"}}}, want: true},
		"DID before everything else": {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Numbers: []string{"+442035141598"}}}, event: event.Event{Call: &event.Call{DID: "+442035141598", To: event.Party{Raw: "101"}}}, want: true},
		"context in any case":        {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Contexts: []string{"queue"}}}, event: event.Event{Call: &event.Call{Context: "QUEUE"}}, want: true},
		"RG matches RG-83502":        {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Contexts: []string{"RG"}}}, event: event.Event{Call: &event.Call{Context: "RG-83502"}}, want: true},
		"RG does not match RGX":      {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Contexts: []string{"RG"}}}, event: event.Event{Call: &event.Call{Context: "RGX"}}},
		"expression":                 {spec: expression(`event.call.queue == "902"`), event: event.Event{Call: &event.Call{Queue: "902"}}, want: true},
		"expression does not hold":   {spec: expression(`event.call.queue == "902"`), event: event.Event{Call: &event.Call{Queue: "903"}}},
		"expression and unparsed":    {spec: expression(`event.call.queue == "902"`), event: event.Event{Type: event.Unparsed}, want: true},
		"all must hold":              {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Contexts: []string{"RG"}, CallTypes: []v1alpha1.CallType{"Inbound"}}}, event: event.Event{Call: &event.Call{Context: "RG-1", CallType: "Outbound"}}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := filter.Compile(&tc.spec)
			require.NoError(t, err)
			got, err := f.Wants(&tc.event)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func expression(text string) v1alpha1.PBXWebhookSpec {
	return v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Expression: text}}
}

// TestATypoLosesNothing: an expression that cannot be evaluated lets the event pass and says so; one
// that does not compile is refused, and the last good one can stay in force.
func TestATypoLosesNothing(t *testing.T) {
	spec := expression(`event.payload.nothing == "x"`)
	f, err := filter.Compile(&spec)
	require.NoError(t, err)
	wanted, err := f.Wants(&event.Event{})
	require.True(t, wanted)
	require.ErrorContains(t, err, "no such key")

	good, bad := expression(`event.call.queue == "902"`), expression(`event.call.que == "902"`)
	bad.Events = []string{"Cdr"}
	last, err := filter.Compile(&good)
	require.NoError(t, err)
	f, err = filter.Compile(&bad)
	require.ErrorContains(t, err, "filter.expression: undefined field 'que'")
	f.KeepExpression(last)
	for queue, want := range map[string]bool{"902": true, "903": false} {
		wanted, err = f.Wants(&event.Event{Name: "Cdr", Call: &event.Call{Queue: queue}})
		require.NoError(t, err)
		require.Equal(t, want, wanted)
	}
	wanted, err = f.Wants(&event.Event{Name: "NewState", Call: &event.Call{Queue: "902"}})
	require.NoError(t, err)
	require.False(t, wanted, "the rest of the new filter is in force")
}

func TestTargetWants(t *testing.T) {
	ended := &event.Event{Type: event.CallEnded, Call: &event.Call{Queue: "902"}}
	unparsed := &event.Event{Type: event.Unparsed}
	for name, tc := range map[string]struct {
		target v1alpha1.Target
		event  *event.Event
		want   bool
	}{
		"all":                          {v1alpha1.Target{}, ended, true},
		"all includes other":           {v1alpha1.Target{}, &event.Event{Type: event.Other}, true},
		"all is not unparsed":          {v1alpha1.Target{}, unparsed, false},
		"unparsed, asked for":          {v1alpha1.Target{EventTypes: []v1alpha1.EventType{event.Unparsed}}, unparsed, true},
		"a type not asked for":         {v1alpha1.Target{EventTypes: []v1alpha1.EventType{event.Unparsed}}, ended, false},
		"expression":                   {v1alpha1.Target{Expression: `event.call.queue == "902"`}, ended, true},
		"expression does not hold":     {v1alpha1.Target{Expression: `event.call.queue == "1"`}, ended, false},
		"type and expression":          {v1alpha1.Target{Expression: `event.call.queue == "902"`, EventTypes: []v1alpha1.EventType{event.CallMissed}}, ended, false},
		"no expression tells unparsed": {v1alpha1.Target{Expression: `event.call.queue == "1"`, EventTypes: []v1alpha1.EventType{event.Unparsed}}, unparsed, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := filter.CompileTarget(&tc.target)
			require.NoError(t, err)
			got, err := f.Wants(tc.event)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
	good, err := filter.CompileTarget(&v1alpha1.Target{Expression: `event.call.queue == "1"`})
	require.NoError(t, err)
	f, err := filter.CompileTarget(&v1alpha1.Target{Expression: `event.call.queue ==`})
	require.ErrorContains(t, err, "expression: the expression ends where more is expected")
	f.KeepExpression(good)
	wanted, err := f.Wants(ended)
	require.NoError(t, err)
	require.False(t, wanted)
}
