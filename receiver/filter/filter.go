// Package filter says which events go to which target: a pure function of the event.
//
// It must not know how events are kept or delivered.
package filter

import (
	"fmt"
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/expression"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Filter is what a webhook forwards at all, compiled from its spec.
type Filter struct {
	provider  v1alpha1.Provider
	region    string
	events    map[string]bool // in lower case; nil: all
	callTypes map[v1alpha1.CallType]bool
	numbers   map[string]bool
	contexts  []string // in upper case
	condition
}

// condition is an expression that must hold; without one everything does.
type condition struct{ expression *expression.Expression }

func compile(field, text string) (condition, error) {
	if text == "" {
		return condition{}, nil
	}
	x, err := expression.Compile(text)
	if err != nil {
		return condition{}, fmt.Errorf("%s: %w", field, err)
	}
	return condition{x}, nil
}

// holds is whether the expression holds. Where that cannot be told the event passes, and err says why.
func (c condition) holds(e *event.Event) (bool, error) {
	if c.expression == nil {
		return true, nil
	}
	holds, err := c.expression.Holds(e)
	return holds || err != nil, err
}

// Compile makes the filter of a webhook. With an error, which is about its expression alone, the
// filter has none.
func Compile(spec *v1alpha1.PBXWebhookSpec) (*Filter, error) {
	f := &Filter{provider: spec.Provider, region: spec.DefaultRegion}
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
		return f, nil
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
			f.numbers[f.canonical(number)] = true
		}
	}
	for _, context := range spec.Filter.Contexts {
		f.contexts = append(f.contexts, strings.ToUpper(context))
	}
	var err error
	f.condition, err = compile("filter.expression", spec.Filter.Expression)
	return f, err
}

// KeepExpression takes over another filter's expression: the last good one stays in force.
func (f *Filter) KeepExpression(last *Filter) { f.condition = last.condition }

// Wants is whether the webhook forwards the event at all. An event that could not be decoded passes:
// which target gets it is that target's choice. So does one of which the expression cannot tell, and
// err says why.
func (f *Filter) Wants(e *event.Event) (wanted bool, err error) {
	switch {
	case e.Type == event.Unparsed:
		return true, nil
	case f.events != nil && !f.events[strings.ToLower(e.Name)]:
		return false, nil
	case f.callTypes != nil && (e.Call == nil || !f.callTypes[e.Call.CallType]):
		return false, nil
	case f.numbers != nil && !f.ownNumber(e):
		return false, nil
	case len(f.contexts) > 0 && (e.Call == nil || !f.inContext(strings.ToUpper(e.Call.Context))):
		return false, nil
	}
	return f.holds(e)
}

// ownNumber is whether the call's own number is one of the filter's: its DID where the PBX gives
// one, else the side that the call's direction makes the PBX's.
func (f *Filter) ownNumber(e *event.Event) bool {
	if e.SMS != nil {
		return f.numbers[f.canonical(e.SMS.To.Raw)]
	}
	if e.Call == nil {
		return false
	}
	switch {
	case e.Call.DID != "":
		return f.numbers[f.canonical(e.Call.DID)]
	case e.Call.Direction == event.Outbound:
		return f.numbers[f.canonical(e.Call.From.Raw)]
	default:
		return f.numbers[f.canonical(e.Call.To.Raw)]
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
func (f *Filter) canonical(number string) string {
	if e164 := wire.E164(number, f.region, f.provider == v1alpha1.VoIPstudio); e164 != "" {
		return e164
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, number)
}

// Target is what one target wants of that, compiled from its spec.
type Target struct {
	types map[event.Type]bool // nil: all but unparsed
	condition
}

// CompileTarget makes the filter of a target. With an error, which is about its expression alone, the
// filter has none.
func CompileTarget(spec *v1alpha1.Target) (*Target, error) {
	t := &Target{}
	if len(spec.EventTypes) > 0 {
		t.types = map[event.Type]bool{}
		for _, kind := range spec.EventTypes {
			t.types[kind] = true
		}
	}
	var err error
	t.condition, err = compile("expression", spec.Expression)
	return t, err
}

// KeepExpression takes over another filter's expression: the last good one stays in force.
func (t *Target) KeepExpression(last *Target) { t.condition = last.condition }

// Wants is whether the target gets the event. Of one that could not be decoded no expression can tell.
func (t *Target) Wants(e *event.Event) (wanted bool, err error) {
	switch {
	case e.Type == event.Unparsed:
		return t.types[event.Unparsed], nil
	case t.types != nil && !t.types[e.Type]:
		return false, nil
	}
	return t.holds(e)
}
