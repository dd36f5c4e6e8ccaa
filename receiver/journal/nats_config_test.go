package journal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/test/natstest"
)

// TestNATSConfigurationIsHeld: what somebody changes of the streams is put back; what is theirs to change is left.
func TestNATSConfigurationIsHeld(t *testing.T) {
	t.Parallel()
	const stream, cursors, leases = "pbxhook_crm_callcenter", "KV_pbxhook_crm_callcenter", "KV_pbxhook_crm_callcenter_leases"
	servers := natstest.Start(t, 1, "")
	n := openNATS(t, servers, nil)
	usable(t, n)
	conn, err := nats.Connect(natstest.URL(servers))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	config := func(name string) jetstream.StreamConfig {
		found, err := js.Stream(t.Context(), name)
		require.NoError(t, err)
		return found.CachedInfo().Config
	}
	for name, edit := range map[string]struct {
		stream string
		change func(c *jetstream.StreamConfig)
		right  func(c jetstream.StreamConfig) bool
	}{
		"retention":      {stream, func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, func(c jetstream.StreamConfig) bool { return c.Retention == jetstream.LimitsPolicy }},
		"discard":        {stream, func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, 1000 }, func(c jetstream.StreamConfig) bool { return c.Discard == jetstream.DiscardNew && c.MaxMsgs == -1 }},
		"age":            {stream, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, func(c jetstream.StreamConfig) bool { return c.MaxAge == 0 }},
		"direct reading": {stream, func(c *jetstream.StreamConfig) { c.AllowDirect = false }, func(c jetstream.StreamConfig) bool { return c.AllowDirect }},
		"subjects":       {stream, func(c *jetstream.StreamConfig) { c.Subjects = []string{"other.>"} }, func(c jetstream.StreamConfig) bool { return strings.HasPrefix(c.Subjects[0], "pbxhook.crm.") }},
		"leases":         {leases, func(c *jetstream.StreamConfig) { c.MaxAge = 0 }, func(c jetstream.StreamConfig) bool { return c.MaxAge == time.Second }},
		"cursors":        {cursors, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, func(c jetstream.StreamConfig) bool { return c.MaxAge == 0 }},
	} {
		c := config(edit.stream)
		edit.change(&c)
		_, err := js.UpdateStream(t.Context(), c)
		require.NoError(t, err, name)
		require.Eventually(t, func() bool { return edit.right(config(edit.stream)) }, patience, 50*time.Millisecond, name)
	}
	c := config(stream)
	c.Compression, c.Description = jetstream.S2Compression, "theirs"
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	c = config(stream)
	c.MaxMsgs = 1000
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return config(stream).MaxMsgs == -1 }, patience, 50*time.Millisecond)
	require.Equal(t, jetstream.S2Compression, config(stream).Compression)
	c = config(stream)
	c.DenyPurge = true // which the servers never take back
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return strings.Contains(n.State().Warning, "deny_purge is true") }, patience, 50*time.Millisecond)
}

// TestNATSOfAnotherCluster is not used, nor deleted; one that says nothing is taken over.
func TestNATSOfAnotherCluster(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 1, "")
	in := func(cluster string) func(o *journal.NATSOptions) {
		return func(o *journal.NATSOptions) { o.Cluster = cluster }
	}
	none := openNATS(t, servers, nil)
	usable(t, none)
	_, err := none.Append(t.Context(), record("e", "c"), nil)
	require.NoError(t, err)
	one := openNATS(t, servers, in("one"))
	usable(t, one)
	require.EqualValues(t, 1, one.State().LastSeq)
	two := openNATS(t, servers, in("two"))
	require.Eventually(t, func() bool {
		err := two.Problem()
		return err != nil && strings.Contains(err.Error(), "belongs to the webhook of the same namespace and name in another cluster (one;")
	}, patience, 20*time.Millisecond)
	_, err = two.Append(t.Context(), record("e", "c"), nil)
	require.ErrorIs(t, err, journal.ErrUnavailable)
	require.NoError(t, journal.DropNATS(t.Context(), journal.NATSOptions{Namespace: "crm", Webhook: "callcenter", URL: natstest.URL(servers), Cluster: "two"}))
	_, err = one.Append(t.Context(), record("e", "c"), nil)
	require.NoError(t, err, "it was not deleted")
}
