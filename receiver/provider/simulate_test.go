package provider_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// TestWhatSimulatorsSendIsDecoded plays every event in every version and method.
func TestWhatSimulatorsSendIsDecoded(t *testing.T) {
	versions := map[v1alpha1.Provider][]v1alpha1.Version{
		v1alpha1.Simotel:    {"G2", "G3", "G4", "Rest2", "Rest3", "Rest4"},
		v1alpha1.VoIPstudio: {""},
		v1alpha1.Acefone:    {""},
	}
	for p, all := range versions {
		for _, version := range all {
			for _, method := range []string{"GET", "POST"} {
				if p == v1alpha1.VoIPstudio && method == "GET" {
					continue // VoIPstudio sends POST alone
				}
				for _, name := range provider.EventNames(p) {
					t.Run(strings.Join([]string{string(p), string(version), method, name}, " "), func(t *testing.T) {
						s := provider.Simulator{Provider: p, Version: version, Method: method, Username: "u", Password: "p"}
						call := s.CallID(time.Now(), 7)
						r, err := s.Request("http://pbx.example.com/hooks/a/b/", name, call, "e1", time.Now(), map[string]any{"extra": "1"})
						require.NoError(t, err)
						e := provider.Decode(p, toEvent(t, r), wire.Settings{Version: version, Location: time.UTC})
						require.NotContains(t, []event.Type{event.Unparsed, event.Other}, e.Type, e.Reason)
						require.Equal(t, name, e.Name)
						if e.Call != nil {
							require.Equal(t, call, e.Call.ID)
						}
						require.Contains(t, string(e.Payload), `"extra"`)
					})
				}
			}
		}
	}
}

func TestUnknownEventsAreNotSent(t *testing.T) {
	for _, p := range []v1alpha1.Provider{v1alpha1.Simotel, v1alpha1.VoIPstudio, v1alpha1.Acefone} {
		_, err := provider.Simulator{Provider: p}.Request("http://a/", "Dance", "1", "1", time.Now(), nil)
		require.ErrorContains(t, err, "expected one of")
	}
	_, err := provider.Simulator{Provider: "Simotel"}.Request("ftp://a/", "Cdr", "1", "1", time.Now(), nil)
	require.ErrorContains(t, err, "http or https URL")
}

func toEvent(t *testing.T, r *http.Request) *event.Request {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return &event.Request{
		Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/hooks/a/b"), Query: r.URL.RawQuery,
		Header: r.Header, Body: body, ReceivedAt: time.Now(),
	}
}
