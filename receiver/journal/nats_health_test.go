package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/test/natstest"
)

// users is a configuration of a server with a user, and what that may not do.
func users(password, denied string) string {
	return fmt.Sprintf("authorization { users: [{user: pbx, password: %s, permissions: {publish: {allow: [\">\"], deny: [%s]}}}] }", password, denied)
}

// TestNATSConnectionEnds in each of the ways in which the servers end it, for longer than the client library goes on by
// itself: the journal goes on when it may connect again.
func TestNATSConnectionEnds(t *testing.T) {
	t.Parallel()
	operator, account, creds, revoked := jwtRevoked(t)
	for name, test := range map[string]struct {
		before, meanwhile string
		creds             []byte
	}{
		"another password":  {before: users("secret", ""), meanwhile: users("other", "")},
		"revoked JWT":       {before: operator + account, meanwhile: operator + revoked, creds: creds},
		"no JetStream":      {before: users("secret", ""), meanwhile: "accounts { A: { users: [{user: pbx, password: secret}] } }"},
		"may not subscribe": {before: users("secret", ""), meanwhile: "authorization { users: [{user: pbx, password: secret, permissions: {subscribe: {deny: [\">\"]}}}] }"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, 1, test.before)
			n := openNATS(t, servers, func(o *journal.NATSOptions) { o.User, o.Password, o.Creds = "pbx", "secret", test.creds })
			usable(t, n)
			servers[0].Restart(test.meanwhile)
			require.Eventually(t, func() bool {
				_, err := n.Append(t.Context(), record("e", "c"), nil)
				return errors.Is(err, journal.ErrUnavailable) && n.Problem() != nil
			}, patience, 50*time.Millisecond)
			time.Sleep(3 * time.Second) // several attempts at connecting
			servers[0].Restart(test.before)
			usable(t, n)
			_, err := n.Append(t.Context(), record("e", "c"), nil)
			require.NoError(t, err)
		})
	}
	t.Run("for good", func(t *testing.T) {
		t.Parallel()
		n := openNATS(t, natstest.Start(t, 1, ""), nil)
		usable(t, n)
		o := share(t, n)
		o.all(t)
		n.EndConnection()
		require.Eventually(t, func() bool {
			_, err := n.Append(t.Context(), record("e", "c"), nil)
			return err == nil
		}, patience, 50*time.Millisecond)
		o.all(t)
	})
}

// TestNATSFailuresAreNamed: whatever keeps events from being stored or delivered is in the status within half a minute,
// and goes when it is over.
func TestNATSFailuresAreNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile string
		named     string
	}{
		"publishes": {meanwhile: users("secret", `"pbxhook.>"`), named: "events cannot be stored"},
		"PubAcks":   {meanwhile: "authorization { users: [{user: pbx, password: secret, permissions: {subscribe: {deny: [\"_INBOX.>\"]}}}] }", named: ""},
		"values":    {meanwhile: users("secret", `"$KV.>"`), named: "partitions cannot be taken"},
		"the API":   {meanwhile: users("secret", `"$JS.API.>"`), named: "cannot be looked at"},
		"payloads":  {meanwhile: "max_payload: 70000\n" + users("secret", ""), named: "max_payload"},
		"reading":   {meanwhile: users("secret", `"$JS.API.DIRECT.GET.>"`), named: ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, 1, users("secret", ""))
			n := openNATS(t, servers, func(o *journal.NATSOptions) {
				o.User, o.Password, o.LeaseTime, o.LeaseBeat = "pbx", "secret", 2*time.Second, 500*time.Millisecond
			})
			usable(t, n)
			o := share(t, n)
			o.all(t)
			servers[0].Restart(test.meanwhile)
			said := func() string {
				if err := n.Problem(); err != nil {
					return err.Error()
				}
				return n.State().Warning
			}
			require.Eventually(t, func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _ = n.Append(ctx, record("e", "c"), nil) // it may fail, or not
				return said() != "" && strings.Contains(said(), test.named)
			}, patience, 200*time.Millisecond)
			servers[0].Restart(users("secret", ""))
			require.Eventually(t, func() bool { return said() == "" }, patience, 100*time.Millisecond)
			_, err := n.Append(t.Context(), record("e", "c"), nil)
			require.NoError(t, err)
		})
	}
}

// TestNATSLongCursors: reading ahead stops before a cursor is longer than what the servers take, and goes on when it is
// shorter.
func TestNATSLongCursors(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 1, "max_payload: 200000")
	n := openNATS(t, servers, nil)
	n.Targets([]string{"crm"})
	usable(t, n)
	parts := share(t, n).all(t)
	receipt, err := n.Append(t.Context(), record("e", "c"), nil)
	require.NoError(t, err)
	heads, err := n.Heads(0, 1)
	require.NoError(t, err)
	view := parts[journal.PartitionOf(heads[0])].For("crm")
	cursor, err := view.OpenCursor("crm")
	require.NoError(t, err)
	for seq := receipt.Seq + 10; len(cursor.Done) < 3000; seq += 2 {
		cursor.Done.Add(seq)
	}
	require.NoError(t, view.Save("crm", journal.Progress{Cursor: cursor}), "it can be written")
	entries, err := view.Entries(0, 10)
	require.NoError(t, err)
	require.Empty(t, entries)
	woken := view.Appended()
	require.NoError(t, view.Save("crm", journal.Progress{}))
	<-woken
	entries, err = view.Entries(0, 10)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}
