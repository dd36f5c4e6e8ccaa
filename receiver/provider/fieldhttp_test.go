package provider_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// fieldCdr is the event of those cases that say in words what is sent.
const fieldCdr = `{"event_name":"Cdr","cuid":"1.1"}`

// fieldRequests are the requests that the cases with a description stand for.
func fieldRequests(t *testing.T) map[string][]string {
	t.Helper()
	post := func(path, authorization string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", path, authorization, len(fieldCdr), fieldCdr)
	}
	const basic = "Basic cGJ4OnMzY3JldA=="
	var zipped bytes.Buffer
	writer := gzip.NewWriter(&zipped)
	_, err := io.WriteString(writer, fieldCdr)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	return map[string][]string{
		"http-gzip":                   {fmt.Sprintf("POST /hooks/crm/sim HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", basic, zipped.Len(), zipped.String())},
		"http-check-with-token-query": {"GET /hooks/crm/voipt?token=tok123456 HTTP/1.1\r\nHost: x\r\n\r\n"},
		"http-double-slash":           {post("//hooks/crm/sim", basic), post("/hooks//crm/sim", basic), post("/hooks/crm//sim", basic)},
		"http-trailing-space":         {post("/hooks/crm/sim%20", basic), post("/hooks/crm/sim%0A", basic)},
		"http-bearer-case":            {post("/hooks/crm/bearer", "bearer tok123456"), post("/hooks/crm/bearer", "token tok123456"), post("/hooks/crm/bearer", "Bearer tok123456")},
	}
}

// serveFieldCase sends the requests of a case, over one connection each, to the handler that answers PBXs.
func serveFieldCase(t *testing.T, c *fieldCase) {
	t.Helper()
	all := map[string]journal.Journal{}
	var webhooks []*ingest.Webhook
	add := func(name string, p v1alpha1.Provider, credentials *ingest.Credentials, methods ...string) {
		all[name] = journal.NewMemory()
		webhooks = append(webhooks, &ingest.Webhook{
			Namespace: "crm", Name: name, Provider: p, Methods: methods, Credentials: credentials,
			Settings: &wire.Settings{TokenName: credentials.TokenName}, Journal: all[name],
		})
	}
	add("sim", v1alpha1.Simotel, &ingest.Credentials{Username: "pbx", Passwords: []string{"s3cret"}}, "GET", "POST")
	add("voipt", v1alpha1.VoIPstudio, &ingest.Credentials{Tokens: []string{"tok123456"}, TokenName: "token"}, "POST")
	add("bearer", v1alpha1.Simotel, &ingest.Credentials{Tokens: []string{"tok123456"}, TokenName: "Authorization"}, "GET", "POST")
	handler := ingest.NewHandler(slog.New(slog.DiscardHandler), nil, func(string, int, time.Duration, string) {})
	handler.Serve(webhooks)
	server := httptest.NewServer(handler)
	defer server.Close()

	// the case says 32 of a body of 33 bytes, which no server can make two requests of
	requests := []string{strings.ReplaceAll(c.Body, "Content-Length: 32\r\n", fmt.Sprintf("Content-Length: %d\r\n", len(fieldCdr)))}
	if described := fieldRequests(t)[c.Name]; described != nil {
		requests = described
	}
	for _, request := range requests {
		responses := exchange(t, server.Listener.Addr().String(), request)
		if counted := c.Want["counted"]; counted != nil {
			require.Equal(t, counted, all["sim"].State().URLChecks > 0, c.Why)
		}
		if kind, ok := c.Want["type"].(string); ok {
			require.Equal(t, strings.TrimPrefix(kind, "io.pbxhook."), responses[0].kind, c.Why)
		}
		if statuses, ok := c.Want["statuses"].([]any); ok {
			require.Len(t, responses, len(statuses), c.Why)
			for i, status := range statuses {
				require.EqualValues(t, status, responses[i].status, "%s\n%s", c.Why, request)
			}
		}
	}
}

type fieldResponse struct {
	status int
	kind   string
}

// exchange sends bytes over a connection, and reads as many responses as requests.
func exchange(t *testing.T, address, request string) (responses []fieldResponse) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	for reader, n := bufio.NewReader(conn), strings.Count(request, " HTTP/1.1\r\n"); n > 0; n-- {
		response, err := http.ReadResponse(reader, nil)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		var answer struct{ Type string }
		_ = json.Unmarshal(body, &answer) // net/http's own 400 is no JSON
		responses = append(responses, fieldResponse{response.StatusCode, answer.Type})
	}
	return responses
}
