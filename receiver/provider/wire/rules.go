package wire

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// Rule says from which of a provider's fields a canonical one is made. A decoder is a table of rules
// and what no rule can say; the mapping tables of the documentation are the same rules.
type Rule struct {
	// Field is the canonical field, such as call.startTime. The number of a party fills its raw text
	// and its extension too. "time" is when the event happened.
	Field string
	// Keys are the provider's; the first one that has a value counts.
	Keys []string
	// Values turns what the provider writes, in lower case and without spaces and underscores, into a
	// canonical word. What it does not list is kept in lower case, unless the words are Closed.
	Values map[string]string
	// Closed says that there are no other words: what Values does not list says nothing.
	Closed bool
	// As turns the provider's text into the canonical one.
	As func(text string) string
	// Set fills the field where a text does not say it all.
	Set func(e *event.Event, f Fields, s Settings, keys []string)
	// Const is a value that every such event has.
	Const string
	// Note is what the documentation says of it.
	Note string

	at canonicalField // of Field; set by Join
}

// Rules are those of one event.
type Rules []Rule

// Join puts the rules of several tables into one, and finds their fields.
func Join(all ...Rules) Rules {
	rules := slices.Concat(all...)
	for i := range rules {
		rules[i].at = canonical(rules[i].Field)
	}
	return rules
}

// Fill fills an event from the fields of its request. Objects of the event, such as its call, are
// made when a value for them is there.
func (rules Rules) Fill(e *event.Event, f Fields, s Settings) {
	for i := range rules {
		rules[i].fill(e, f, s)
	}
}

// KeysOf are the keys that count under settings: the customer's own one first.
func (r *Rule) KeysOf(s Settings) []string {
	if key := s.Fields[r.Field]; key != "" {
		return append([]string{key}, r.Keys...)
	}
	return r.Keys
}

func (r *Rule) fill(e *event.Event, f Fields, s Settings) {
	keys := r.KeysOf(s)
	if r.Set != nil {
		r.Set(e, f, s, keys)
		return
	}
	field := r.at
	if field.kind == kindUnknown {
		field = canonical(r.Field)
	}
	switch field.kind {
	case kindText:
		if text := r.text(f.Text(keys...)); text != "" {
			field.of(e).SetString(text)
		}
	case kindParty:
		if raw := f.Text(keys...); raw != "" {
			party := field.of(e).Addr().Interface().(*event.Party)
			name := party.Name
			*party = s.Party(raw)
			party.Name = name
		}
	case kindInt:
		if n := f.Int(keys...); n != nil {
			field.of(e).Set(reflect.ValueOf(n))
		}
	case kindBool:
		if b := f.Bool(keys...); b != nil {
			field.of(e).Set(reflect.ValueOf(b))
		}
	case kindTime:
		if t := f.Time(s, keys...); t != nil {
			field.of(e).Set(reflect.ValueOf(t))
		}
	case kindHappened:
		if t := f.Time(s, keys...); t != nil {
			e.Time = *t
		}
	case kindJSON:
		if list := f.List(keys...); list != nil {
			field.of(e).Set(reflect.ValueOf(Marshal(list)))
		}
	}
}

func (r *Rule) text(text string) string {
	switch {
	case r.Const != "":
		return r.Const
	case text != "" && r.As != nil:
		return r.As(text)
	case text != "" && r.Values != nil:
		if canonical, ok := r.Values[Plain(text)]; ok || r.Closed {
			return canonical
		}
		return strings.ToLower(text)
	}
	return text
}

// Plain is a word without what PBXs write differently from one page to the next: case, spaces,
// hyphens and underscores.
func Plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case ' ', '_', '-', '+':
			return -1
		}
		return r
	}, strings.ToLower(text))
}

// kind is how a canonical field is filled.
type kind int

const (
	kindUnknown kind = iota
	kindText
	kindParty
	kindInt
	kindBool
	kindTime
	kindHappened
	kindJSON
	kindAgents
)

// canonicalField is where in an event a canonical field is.
type canonicalField struct {
	index []int
	kind  kind
}

// of is the field of an event; the objects on the way to it are made.
func (c canonicalField) of(e *event.Event) reflect.Value {
	value := reflect.ValueOf(e).Elem()
	for _, i := range c.index {
		if value.Kind() == reflect.Pointer {
			if value.IsNil() {
				value.Set(reflect.New(value.Type().Elem()))
			}
			value = value.Elem()
		}
		value = value.Field(i)
	}
	return value
}

// canonical finds a field by its canonical name. A rule for a field that does not exist is a mistake
// of ours, which every test of its decoder shows.
func canonical(name string) canonicalField {
	field, ok := canonicalFields[name]
	if !ok {
		panic(fmt.Sprintf("wire: %s is not a canonical field", name))
	}
	return field
}

var canonicalFields = func() map[string]canonicalField {
	fields := map[string]canonicalField{"time": {kind: kindHappened}}
	addFields(fields, "", nil, reflect.TypeFor[event.Event]())
	return fields
}()

func addFields(fields map[string]canonicalField, prefix string, index []int, t reflect.Type) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		at := append(append([]int{}, index...), i)
		name = prefix + name
		switch fieldType := field.Type; fieldType {
		case reflect.TypeFor[*int64]():
			fields[name] = canonicalField{at, kindInt}
		case reflect.TypeFor[*bool]():
			fields[name] = canonicalField{at, kindBool}
		case reflect.TypeFor[*time.Time]():
			fields[name] = canonicalField{at, kindTime}
		case reflect.TypeFor[json.RawMessage]():
			fields[name] = canonicalField{at, kindJSON}
		case reflect.TypeFor[[]event.Agent]():
			fields[name] = canonicalField{at, kindAgents}
		case reflect.TypeFor[event.Party]():
			addFields(fields, name+".", at, fieldType)
			fields[name+".number"] = canonicalField{at, kindParty}
		default:
			switch {
			case fieldType.Kind() == reflect.String:
				fields[name] = canonicalField{at, kindText}
			case fieldType.Kind() == reflect.Pointer:
				addFields(fields, name+".", at, fieldType.Elem())
			}
		}
	}
}
