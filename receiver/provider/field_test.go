package provider_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/receiver/render"
)

// fieldCase is a line of testdata/field.jsonl: an input from the field on which an earlier version failed, and what is right.
type fieldCase struct {
	Name     string         `json:"name"`
	Provider string         `json:"provider"` // http: a raw request
	Flags    []string       `json:"flags"`    // of pbxhook decode
	Body     string         `json:"body"`
	Base64   []byte         `json:"body_base64"`
	Want     map[string]any `json:"want"` // dotted fields of the CloudEvent
	Why      string         `json:"why"`
}

func fieldCases(t testing.TB) []fieldCase {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "field.jsonl"))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	var all []fieldCase
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c fieldCase
		require.NoError(t, json.Unmarshal(lines.Bytes(), &c))
		all = append(all, c)
	}
	require.NoError(t, lines.Err())
	require.Len(t, all, 92)
	return all
}

// request is the case as pbxhook decode reads its flags.
func (c *fieldCase) request(t testing.TB) (v1alpha1.Provider, *event.Request, wire.Settings) {
	t.Helper()
	p, err := provider.Find(c.Provider)
	require.NoError(t, err)
	r := &event.Request{Method: http.MethodPost, Header: http.Header{}, Body: []byte(c.Body), ReceivedAt: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)}
	if c.Base64 != nil {
		r.Body = c.Base64
	}
	settings := wire.Settings{Location: time.UTC}
	require.Zero(t, len(c.Flags)%2)
	for i := 0; i < len(c.Flags); i += 2 {
		switch value := c.Flags[i+1]; c.Flags[i] {
		case "--time-zone":
			settings.Location, err = time.LoadLocation(value)
			require.NoError(t, err)
		case "--region":
			settings.Region = value
		case "--content-type":
			r.Header.Set("Content-Type", value)
		case "--path":
			r.Path = value
		case "--query":
			r.Query = value
		case "--method":
			r.Method = value
		default:
			require.Fail(t, "unknown flag", c.Flags[i])
		}
	}
	return p, r, settings
}

// TestField decodes what senders really send.
func TestField(t *testing.T) {
	for _, c := range fieldCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			if c.Provider == "http" {
				serveFieldCase(t, &c)
				return
			}
			p, r, settings := c.request(t)
			e := provider.Decode(p, r, settings)
			requireFields(t, &e, r, c.Want, c.Why)
		})
	}
}

// requireFields shows that an event has fields, by their dotted names in the CloudEvent.
func requireFields(t *testing.T, e *event.Event, r *event.Request, want map[string]any, why string) {
	t.Helper()
	text := render.NewCloudEvent("/x", &journal.Record{ID: "1", Request: *r}, e).AppendJSON(nil)
	var got map[string]any
	require.NoError(t, json.Unmarshal(text, &got))
	for name, value := range want {
		require.Equal(t, value, member(got, name), "%s: %s\n%s", name, why, text)
	}
}

// member is the value under a dotted name; nil where there is none.
func member(value any, name string) any {
	for step := range strings.SplitSeq(name, ".") {
		switch outer := value.(type) {
		case map[string]any:
			value = outer[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(outer) {
				return nil
			}
			value = outer[i]
		default:
			return nil
		}
	}
	return value
}
