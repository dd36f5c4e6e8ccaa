// Package filter says which events go to which target: a pure function of the event.
//
// It must not know how events are kept or delivered.
package filter

import (
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Filter is what a webhook forwards at all, compiled from its spec.
type Filter struct {
	events    map[string]bool // in lower case; nil: all
	callTypes map[v1alpha1.CallType]bool
	numbers   map[string]bool
	contexts  []string // in upper case
}

// Compile makes the filter of a webhook.
func Compile(spec *v1alpha1.PBXWebhookSpec) *Filter {
	f := &Filter{}
	if len(spec.Events) > 0 {
		f.events = map[string]bool{}
		for _, name := range spec.Events {
			f.events[strings.ToLower(name)] = true
			for _, member := range provider.Categories(spec.Provider, name) {
				f.events[strings.ToLower(member)] = true
			}
		}
	}
	if spec.Filter == nil {
		return f
	}
	if len(spec.Filter.CallTypes) > 0 {
		f.callTypes = map[v1alpha1.CallType]bool{}
		for _, callType := range spec.Filter.CallTypes {
			f.callTypes[callType] = true
		}
	}
	if len(spec.Filter.Numbers) > 0 {
		f.numbers = map[string]bool{}
		for _, number := range spec.Filter.Numbers {
			f.numbers[canonical(number, spec)] = true
		}
	}
	for _, context := range spec.Filter.Contexts {
		f.contexts = append(f.contexts, strings.ToUpper(context))
	}
	return f
}

// Wants is whether the webhook forwards the event at all. An event that could not be decoded passes:
// which target gets it is that target's choice.
func (f *Filter) Wants(e *event.Event, spec *v1alpha1.PBXWebhookSpec) bool {
	if e.Type == event.Unparsed {
		return true
	}
	if f.events != nil && !f.events[strings.ToLower(e.Name)] {
		return false
	}
	if f.callTypes != nil && (e.Call == nil || !f.callTypes[e.Call.CallType]) {
		return false
	}
	if f.numbers != nil && !f.ownNumber(e, spec) {
		return false
	}
	return len(f.contexts) == 0 || (e.Call != nil && f.inContext(strings.ToUpper(e.Call.Context)))
}

// ownNumber is whether the call's own number is one of the filter's: its DID where the PBX gives
// one, else the side that the call's direction makes the PBX's.
func (f *Filter) ownNumber(e *event.Event, spec *v1alpha1.PBXWebhookSpec) bool {
	if e.SMS != nil {
		return f.numbers[canonical(e.SMS.To.Raw, spec)]
	}
	if e.Call == nil {
		return false
	}
	switch {
	case e.Call.DID != "":
		return f.numbers[canonical(e.Call.DID, spec)]
	case e.Call.Direction == event.Outbound:
		return f.numbers[canonical(e.Call.From.Raw, spec)]
	default:
		return f.numbers[canonical(e.Call.To.Raw, spec)]
	}
}

func (f *Filter) inContext(context string) bool {
	for _, wanted := range f.contexts {
		if context == wanted || strings.HasPrefix(context, wanted+"-") { // RG matches RG-83502
			return true
		}
	}
	return false
}

// canonical is a number in E.164, or its bare digits where that cannot be told.
func canonical(number string, spec *v1alpha1.PBXWebhookSpec) string {
	if e164 := wire.E164(number, spec.DefaultRegion, spec.Provider == v1alpha1.VoIPstudio); e164 != "" {
		return e164
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, number)
}

// TargetWants is whether a target takes events of a type: those that it names, or all but unparsed.
func TargetWants(target *v1alpha1.Target, kind event.Type) bool {
	if len(target.EventTypes) == 0 {
		return kind != event.Unparsed
	}
	for _, wanted := range target.EventTypes {
		if wanted == kind {
			return true
		}
	}
	return false
}
