package ingest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/ingest"
)

// TestRejectedRequestsSayWhy: to the people of this side more than to the sender, and never a secret.
func TestRejectedRequestsSayWhy(t *testing.T) {
	r := newRig(t)
	r.add("percent", &ingest.Credentials{Username: "username", Passwords: []string{"s3cret+1"}})
	tests := []struct {
		name               string
		method, path, pass string
		header             []string
		code               int
		hint, webhook      string
	}{
		{"nobody", "POST", "/hooks/crm/simotel/Cdr", "", nil, 401, "no username and password came", "crm/simotel"},
		{"wrong password", "POST", "/hooks/crm/simotel/Cdr", "s3cret", nil, 401, "the username is right, the password is wrong", "crm/simotel"},
		{"other user", "POST", "/hooks/crm/simotel/Cdr", "", []string{"Authorization", "Basic eDpzM2NyZXQ="}, 401, "the username is not the webhook's", "crm/simotel"},
		{"no password", "POST", "/hooks/crm/simotel/Cdr", "", []string{"Authorization", "Basic dXNlcm5hbWU6"}, 401, "without a password", "crm/simotel"},
		{"bearer", "POST", "/hooks/crm/simotel/Cdr", "", []string{"Authorization", "Bearer s3cret"}, 401, "not Basic", "crm/simotel"},
		{"token in header", "POST", "/hooks/crm/simotel/Cdr", "", []string{"X-API-Key", "s3cret"}, 401, "came as X-API-Key", "crm/simotel"},
		{"token in query", "POST", "/hooks/crm/simotel/Cdr?x-api-key=s3cret", "", nil, 401, "came as X-API-Key", "crm/simotel"},
		{"percent-encoded", "POST", "/hooks/crm/percent/Cdr", "s3cret%2B1", nil, 401, "the password is wrong: it would match after percent-decoding", "crm/percent"},
		{"white space at the end", "POST", "/hooks/crm/percent/Cdr", "s3cret+1\n", nil, 401, "it would match without white space", "crm/percent"},
		{"username", "POST", "/hooks/crm/percent/Cdr", "", []string{"Authorization", "Basic dXNlcm5hbWUgOnMzY3JldCsx"}, 401, "the username is not the webhook's: it would match without white space", "crm/percent"},
		{"token, percent-encoded", "POST", "/hooks/crm/simotel/Cdr", "", []string{"X-API-Key", "t0ken%2f%3D%2B"}, 401, "came as X-API-Key, and it is wrong: it would match after percent-decoding", "crm/simotel"},
		{"token in query, escaped twice", "POST", "/hooks/crm/simotel/Cdr?x-api-key=t0ken%252f%253D%252B", "", nil, 401, "and it is wrong: it would match after percent-decoding", "crm/simotel"},
		{"method", "DELETE", "/hooks/crm/simotel/Cdr", "password", nil, 405, "", "crm/simotel"},
		{"no webhook", "POST", "/hooks/crm/simotell/s3cret/Cdr", "s3cret", nil, 404, "", ""},
		{"no path", "POST", "/" + strings.Repeat("ä", 200), "", nil, 404, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.code, r.do(tt.method, tt.path, tt.pass, "{}", tt.header...).code)
			got := r.handler.Rejected()[0]
			require.Equal(t, tt.code, got.Code)
			require.Equal(t, tt.webhook, got.Webhook)
			require.Contains(t, got.Hint, tt.hint)
			require.NotEmpty(t, got.Reason)
			require.Contains(t, got.Sender, "127.0.0.1:")
			require.NotContains(t, fmt.Sprintf("%+v", got), "s3cret")
			require.Less(t, len(got.Path), 200)
		})
	}
	require.Equal(t, "/hooks/crm/simotell", r.handler.Rejected()[1].Path)
	for range 600 {
		r.do("DELETE", "/hooks/crm/open/Cdr", "", "{}")
	}
	r.do("POST", "/nowhere", "", "{}")
	all := r.handler.Rejected()
	require.Len(t, all, 500)
	require.Equal(t, 404, all[0].Code)
	require.Equal(t, 405, all[499].Code)
	require.False(t, all[0].Time.Before(all[1].Time))
}
