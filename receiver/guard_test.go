package receiver_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestJournalServersAreGuarded: journal.nats does not lead to what a target may not reach either.
func TestJournalServersAreGuarded(t *testing.T) {
	nats := func(url string) string {
		return strings.Replace(manifest("p", at("a", "http://127.0.0.1:1/")), "spec:\n", "spec:\n  journal: {nats: {url: \""+url+"\"}}\n", 1)
	}
	r := start(t, nats("nats://169.254.169.254:4222"))
	problem := func(part string) func() bool {
		return func() bool { return strings.Contains(r.report().Webhooks[0].JournalProblem, part) }
	}
	r.eventually("a metadata service is refused", problem("address 169.254.169.254 is not allowed"))
	require.Equal(t, 503, r.send("p"))

	r = start(t, nats("nats://127.0.0.1:1"))
	r.eventually("this machine is allowed, and does not answer", problem("connection refused"))
}
