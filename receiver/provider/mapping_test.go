package provider_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// TestEveryMappingIsShown: for each key of each rule there is a sample in which this key gave the
// canonical field its value. A rule that several events share needs one.
func TestEveryMappingIsShown(t *testing.T) {
	shown := map[string]bool{}
	for _, s := range samples(t) {
		settings := s.settings(t)
		e := provider.Decode(s.Provider, s.request(), settings)
		fields, err := wire.Read(s.request(), settings)
		if err != nil {
			continue
		}
		for _, m := range provider.Events(s.Provider) {
			if m.Name != e.Name {
				continue
			}
			for _, rule := range m.Rules {
				for _, key := range shows(fields, rule, &e) {
					shown[line(s.Provider, rule, key)] = true
				}
			}
		}
	}
	var missing []string
	for _, p := range providers {
		for _, m := range provider.Events(p) {
			for _, rule := range m.Rules {
				for _, key := range rule.Keys {
					if l := line(p, rule, key); !shown[l] && !slices.Contains(missing, l) {
						missing = append(missing, l)
					}
				}
			}
		}
	}
	require.Empty(t, missing, "add samples:\n%s", strings.Join(missing, "\n"))
}

func line(p v1alpha1.Provider, rule wire.Rule, key string) string {
	return string(p) + " " + rule.Field + " <- " + key + " " + rule.Note
}

// shows are the keys that gave the rule's field its value: the first one that has a value or, where a
// function chooses, those whose value is in the field.
func shows(fields wire.Fields, rule wire.Rule, e *event.Event) []string {
	canonical := strings.ToLower(canonicalText(e, rule.Field))
	if canonical == "" {
		return nil
	}
	var keys []string
	for _, key := range rule.Keys {
		text := strings.ToLower(wire.Text(fields.Value(key)))
		switch {
		case text == "" || text[0] == '$':
		case rule.Set == nil, rule.Field == "time", key == "t_cause", key == "connected_at":
			return []string{key}
		case strings.Contains(canonical, text), strings.Contains(text, canonical), text[0] == '{', text[0] == '[':
			keys = append(keys, key)
		}
	}
	return keys
}

// canonicalText is a canonical field of an event as text.
func canonicalText(e *event.Event, field string) string {
	if field == "time" {
		if e.Time.IsZero() {
			return ""
		}
		return e.Time.Format(time.RFC3339)
	}
	text, err := json.Marshal(e)
	if err != nil {
		return ""
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return ""
	}
	for step := range strings.SplitSeq(field, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return ""
		}
		if raw, party := object["raw"]; party && step == "number" {
			value = raw
			continue
		}
		value = object[step]
	}
	if list, ok := value.([]any); ok && len(list) == 0 {
		return ""
	}
	return wire.Text(value)
}
