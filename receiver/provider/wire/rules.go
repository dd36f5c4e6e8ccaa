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
	// Set fills the field where a text does not say it all, and reports whether the request had something for it.
	Set func(e *event.Event, f Fields, s Settings, keys []string) bool
	// Verbatim says that the text is a person's own, in which no word stands for nothing.
	Verbatim bool
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
		register(rules[i].Keys)
	}
	return rules
}

// Fill fills an event from the fields of its request, and reports whether the request had anything for it. Objects of
// the event, such as its call, are made when a value for them is there.
func (rules Rules) Fill(e *event.Event, f Fields, s Settings) (found bool) {
	for i := range rules {
		if rules[i].fill(e, f, s) {
			found = true
		}
	}
	return found
}

// KeysOf are the keys that count under settings: the customer's own one first.
func (r *Rule) KeysOf(s Settings) []string {
	if key := s.Fields[r.Field]; key != "" {
		return append([]string{key}, r.Keys...)
	}
	return r.Keys
}

// fill fills the rule's field, and reports whether the request had something for it.
func (r *Rule) fill(e *event.Event, f Fields, s Settings) bool {
	keys := r.KeysOf(s)
	if r.Set != nil {
		return r.Set(e, f, s, keys)
	}
	field := r.at
	if field.kind == kindUnknown {
		field = canonical(r.Field)
	}
	switch field.kind {
	case kindText:
		if r.Const != "" {
			field.of(e).SetString(r.Const)
			return false
		}
		text := r.text(r.read(f, keys))
		if text != "" {
			field.of(e).SetString(text)
		}
		return text != ""
	case kindParty:
		chosen := f.Party(s, keys...)
		if chosen.Raw == "" {
			return false
		}
		party := field.of(e).Addr().Interface().(*event.Party)
		chosen.Name = party.Name
		*party = chosen
		return true
	case kindHappened:
		t := f.Time(s, keys...)
		if t != nil {
			e.Time = *t
		}
		return t != nil
	}
	value := field.value(f, s, keys)
	if value.IsNil() {
		return false
	}
	field.of(e).Set(value)
	return true
}

// read is the rule's text.
func (r *Rule) read(f Fields, keys []string) string {
	if !r.Verbatim {
		return f.Text(keys...)
	}
	for _, key := range keys {
		if text, ok := f.named[key].(string); ok {
			return strings.TrimSpace(text)
		}
	}
	return f.Text(keys...)
}

// value is what a field that may be nil is set to.
func (c canonicalField) value(f Fields, s Settings, keys []string) reflect.Value {
	switch c.kind {
	case kindInt:
		return reflect.ValueOf(f.Int(keys...))
	case kindSeconds:
		return reflect.ValueOf(f.Seconds(keys...))
	case kindBool:
		return reflect.ValueOf(f.Bool(keys...))
	case kindTime:
		return reflect.ValueOf(f.Time(s, keys...))
	case kindJSON:
		if list := f.List(keys...); list != nil {
			return reflect.ValueOf(Marshal(list))
		}
	}
	return reflect.ValueOf(json.RawMessage(nil))
}

func (r *Rule) text(text string) string {
	switch {
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

// Plain is a word without what PBXs write differently from one page to the next: case, blanks,
// hyphens, underscores, and the plus signs that stand for blanks.
func Plain(text string) string {
	if !isASCII(text) {
		text = strings.ToLower(strings.ReplaceAll(text, "\u00a0", " "))
	}
	plain := make([]byte, 0, 32) // on the stack, as words are
	for i := range len(text) {
		switch c := text[i]; c {
		case ' ', '_', '-', '+', '\t':
		default:
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			plain = append(plain, c)
		}
	}
	return string(plain)
}

// PlainName is the name of an event without all but its letters and digits: PBXs and relays write call.hangup, CALL_HANGUP and
// callHangup.
func PlainName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(name))
}

// kind is how a canonical field is filled.
type kind int

const (
	kindUnknown kind = iota
	kindText
	kindParty
	kindInt
	kindSeconds
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
			if strings.HasSuffix(name, "Seconds") {
				fields[name] = canonicalField{at, kindSeconds}
			}
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
