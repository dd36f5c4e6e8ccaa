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
		"all must hold":              {spec: v1alpha1.PBXWebhookSpec{Filter: &v1alpha1.Filter{Contexts: []string{"RG"}, CallTypes: []v1alpha1.CallType{"Inbound"}}}, event: event.Event{Call: &event.Call{Context: "RG-1", CallType: "Outbound"}}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, filter.Compile(&tc.spec).Wants(&tc.event, &tc.spec))
		})
	}
}

func TestTargetWants(t *testing.T) {
	all := &v1alpha1.Target{}
	require.True(t, filter.TargetWants(all, event.CallEnded))
	require.True(t, filter.TargetWants(all, event.Other))
	require.False(t, filter.TargetWants(all, event.Unparsed), "unparsed goes only to who asks for it")
	some := &v1alpha1.Target{EventTypes: []v1alpha1.EventType{event.Unparsed}}
	require.True(t, filter.TargetWants(some, event.Unparsed))
	require.False(t, filter.TargetWants(some, event.CallEnded))
}
