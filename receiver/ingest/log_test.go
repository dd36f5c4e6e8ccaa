package ingest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// loggedHandler is a handler with two webhooks, and what it logs.
func loggedHandler() (*ingest.Handler, *bytes.Buffer) {
	logged := &bytes.Buffer{}
	handler := ingest.NewHandler(slog.New(slog.NewJSONHandler(logged, nil)), nil, func(string, int, time.Duration, string) {})
	webhook := func(name string) *ingest.Webhook {
		return &ingest.Webhook{
			Namespace: "crm", Name: name, Provider: v1alpha1.Simotel, Methods: []string{"GET", "POST"}, Settings: &wire.Settings{}, Journal: journal.NewMemory(),
			Credentials: &ingest.Credentials{Username: "username", Passwords: []string{"password"}, Tokens: []string{"t0ken"}},
		}
	}
	handler.Serve([]*ingest.Webhook{webhook("one"), webhook("two")})
	return handler, logged
}

func send(handler http.Handler, method, path, password string) int {
	r := httptest.NewRequest(method, path, strings.NewReader(""))
	if password != "" {
		r.SetBasicAuth("username", password)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Code
}

// TestRejectedRequestsAreLoggedOnceAMinute: a line for each webhook and status, with their number.
func TestRejectedRequestsAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, logged := loggedHandler()
		for range 100 {
			send(handler, "POST", "/hooks/crm/one/Cdr", "s3cret")
			send(handler, "DELETE", "/hooks/crm/one/Cdr", "s3cret")
			send(handler, "POST", "/hooks/crm/two/Cdr", "s3cret")
			send(handler, "GET", "/hooks/crm/two", "")
			send(handler, "GET", "/nowhere", "")
		}
		require.Equal(t, []string{"crm/one 401 1", "crm/one 405 1", "crm/two 401 1", "crm/two 200 1", " 404 1"}, lines(t, logged))
		time.Sleep(time.Minute)
		send(handler, "POST", "/hooks/crm/one/Cdr", "s3cret")
		send(handler, "GET", "/hooks/crm/two", "")
		require.Equal(t, []string{"crm/one 401 100", "crm/two 200 100"}, lines(t, logged))
	})
}

// lines returns the webhook, status and count of what was logged, and forgets it.
func lines(t *testing.T, logged *bytes.Buffer) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(logged.String()) {
		require.NotContains(t, line, "s3cret")
		var one struct {
			Webhook     string
			Code, Count int
		}
		require.NoError(t, json.Unmarshal([]byte(line), &one))
		all = append(all, fmt.Sprintf("%s %d %d", one.Webhook, one.Code, one.Count))
	}
	logged.Reset()
	return all
}

// TestGuessesAreToldFromAnOldPassword: a PBX that was forgotten when the password changed counts once, and right
// credentials are accepted whatever came before.
func TestGuessesAreToldFromAnOldPassword(t *testing.T) {
	handler, _ := loggedHandler()
	require.Zero(t, handler.Guessed("crm/one"))
	for range 100 {
		require.Equal(t, 401, send(handler, "POST", "/hooks/crm/one/Cdr", "the old one"))
		require.Equal(t, 401, send(handler, "GET", "/hooks/crm/one?event_name=Cdr", ""), "nothing is no guess")
	}
	require.EqualValues(t, 1, handler.Guessed("crm/one"))
	for i := range 3000 {
		require.Equal(t, 401, send(handler, "POST", "/hooks/crm/one/Cdr", fmt.Sprint("guess ", i)))
		require.Equal(t, 401, send(handler, "POST", fmt.Sprintf("/hooks/crm/one/t%d/Cdr", i), ""))
	}
	require.EqualValues(t, 6001, handler.Guessed("crm/one"))
	require.Zero(t, handler.Guessed("crm/two"))
	require.Zero(t, handler.Guessed("crm/none"))
	require.Equal(t, 202, send(handler, "GET", "/hooks/crm/one/Cdr?unique_id=1", "password"), "nobody is locked out")
}
