package receiver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/test/natstest"
	"github.com/pbxhook/pbxhook/test/output"
)

// TestNATSGoesBack to an earlier moment, as after a restored backup: that is reported, and what is accepted from then on
// is delivered, whether receivers run meanwhile or not.
func TestNATSGoesBack(t *testing.T) {
	t.Parallel()
	const stream, cursors = "pbxhook_crm_callcenter", "KV_pbxhook_crm_callcenter"
	for name, test := range map[string]struct {
		servers int
		streams []string // that are restored; none: all that the servers have
		stopped bool     // no receiver runs meanwhile
		silent  bool     // nothing of it needs to be reported: targets get some events again
	}{
		"all, under receivers":             {servers: 1},
		"all, without receivers":           {servers: 1, stopped: true, silent: true},
		"all of three, under receivers":    {servers: 3},
		"the stream, under receivers":      {servers: 1, streams: []string{stream}},
		"the stream, without receivers":    {servers: 1, streams: []string{stream}, stopped: true},
		"the cursors, under receivers":     {servers: 1, streams: []string{cursors}, silent: true},
		"the cursors, without receivers":   {servers: 1, streams: []string{cursors}, stopped: true, silent: true},
		"all but leases, under receivers":  {servers: 1, streams: []string{stream, cursors, cursors + "_dead", stream + "_log"}},
		"the dead letters, with receivers": {servers: 1, streams: []string{cursors + "_dead"}, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, test.servers, "")
			target := newOrdered(t)
			text := natsManifest(natstest.URL(servers), target.URL, "")
			text = strings.Replace(text, "replicas: 1", fmt.Sprint("replicas: ", test.servers), 1)
			receivers := []*running{start(t, text), start(t, text)}
			t.Cleanup(func() {
				if t.Failed() {
					for _, r := range receivers {
						t.Log(r.log)
					}
				}
			})
			sent := 0
			send := func(calls int) {
				t.Helper()
				for _, r := range receivers {
					r.eventually("NATS is used", func() bool { return r.problem() == "" })
				}
				for n := range 3 {
					for call := range calls {
						body := fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.%d","exten":"9","state":"Ringing","n":"%d"}`, sent, call, n)
						receivers[0].eventually("it is accepted", func() bool { return receivers[(n+call)%2].tryPost(body) })
					}
				}
				sent += 3 * calls
				receivers[0].eventually("all arrive", func() bool { return target.count() == sent })
			}
			each := func(do func(s *natstest.Server)) {
				for _, s := range servers {
					do(s)
				}
			}
			send(10)
			each((*natstest.Server).Kill)
			backups := map[*natstest.Server]natstest.Backup{}
			each(func(s *natstest.Server) { backups[s] = s.Backup() })
			each((*natstest.Server).Run)
			send(40)
			if test.stopped {
				for _, r := range receivers {
					r.stop()
				}
			}
			each((*natstest.Server).Kill)
			each(func(s *natstest.Server) { s.Restore(backups[s], test.streams...) })
			each((*natstest.Server).Run)
			if test.stopped {
				for _, r := range receivers {
					r.run()
				}
			}
			send(20)
			send(20)
			target.inOrder(t)
			for _, r := range receivers {
				require.NotContains(t, r.log.String(), "panic")
			}
			if !test.silent {
				receivers[0].eventually("it is reported", func() bool {
					return strings.Contains(receivers[0].log.String()+receivers[1].log.String(), "has gone back, as after")
				})
			}
		})
	}
}

// TestNATSCursorsAreLost, with the bucket or by their keys, while no receiver runs and events wait: each target that had
// cursors gets them, and that is reported.
func TestNATSCursorsAreLost(t *testing.T) {
	t.Parallel()
	const bucket = "pbxhook_crm_callcenter"
	for name, lose := range map[string]func(t *testing.T, js jetstream.JetStream) error{
		"the bucket is deleted": func(t *testing.T, js jetstream.JetStream) error { return js.DeleteKeyValue(t.Context(), bucket) },
		"the bucket is purged": func(t *testing.T, js jetstream.JetStream) error {
			stream, err := js.Stream(t.Context(), "KV_"+bucket)
			require.NoError(t, err)
			return stream.Purge(t.Context())
		},
		"some keys are deleted": func(t *testing.T, js jetstream.JetStream) (err error) {
			kv, err := js.KeyValue(t.Context(), bucket)
			require.NoError(t, err)
			for part := range 9 {
				err = errors.Join(err, kv.Delete(t.Context(), fmt.Sprintf("cursor.%d.crm", part)))
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, 1, "")
			target := newOrdered(t)
			r := start(t, natsManifest(natstest.URL(servers), target.URL, ""))
			r.eventually("NATS is used", func() bool { return r.problem() == "" })
			target.setAway(true)
			for call := range 50 {
				r.post(fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.1","exten":"9","state":"Ringing","n":"0"}`, call))
			}
			r.stop()
			conn, err := nats.Connect(natstest.URL(servers))
			require.NoError(t, err)
			defer conn.Close()
			js, err := jetstream.New(conn)
			require.NoError(t, err)
			require.NoError(t, lose(t, js))
			target.setAway(false)
			r.run()
			r.eventually("all arrive", func() bool { return target.count() == 50 })
			r.eventually("it is in the status", func() bool {
				return strings.Contains(r.report().Webhooks[0].JournalDamage, "cursors of target crm were gone")
			})
		})
	}
}

// TestNATSDamagedCursor concerns its partition alone, and is named in the status; deleted, it begins at the first stored
// event.
func TestNATSDamagedCursor(t *testing.T) {
	t.Parallel()
	const bucket = "pbxhook_crm_callcenter"
	servers := natstest.Start(t, 1, "")
	target := newOrdered(t)
	r := &running{t: t, file: t.TempDir() + "/manifest.yaml", data: t.TempDir(), log: &output.Text{}, admin: true}
	r.write(natsManifest(natstest.URL(servers), target.URL, ""))
	r.run()
	r.eventually("NATS is used", func() bool { return r.problem() == "" })
	target.setAway(true)
	for call := range 64 {
		r.post(fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.1","exten":"9","state":"Ringing","n":"0"}`, call))
	}
	r.stop()
	conn, err := nats.Connect(natstest.URL(servers))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	kv, err := js.KeyValue(t.Context(), bucket)
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), "cursor.3.crm", []byte("nonsense"))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), bucket)
	require.NoError(t, err)
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("pbxhook.crm.callcenter.p.3"))
	require.NoError(t, err)
	there := int(info.State.Subjects["pbxhook.crm.callcenter.p.3"])
	require.NotZero(t, there)
	target.setAway(false)
	r.run()
	r.eventually("all others arrive", func() bool { return target.count() == 64-there })
	r.eventually("it is named", func() bool {
		return strings.Contains(r.report().Webhooks[0].JournalWarning, "pbxhook journal reset-cursor, or nats kv del pbxhook_crm_callcenter cursor.3.crm")
	})
	reset := func(target string, dry bool) []admin.DamagedCursor {
		client, err := admin.NewClient("http://" + r.adminAddress)
		require.NoError(t, err)
		answer, err := client.ResetCursors(t.Context(), admin.Webhook{Namespace: "crm", Name: "callcenter"}, admin.ResetRequest{Target: target, DryRun: dry})
		require.NoError(t, err)
		return answer.Cursors
	}
	require.Empty(t, reset("other", false))
	damaged := []admin.DamagedCursor{{Target: "crm", Partition: 3}}
	require.Equal(t, damaged, reset("", true))
	require.Equal(t, damaged, reset("crm", false), "the dry run has changed nothing")
	require.Empty(t, reset("", false), "one that can be read is left alone")
	r.eventually("all arrive", func() bool { return target.count() == 64 })
	r.eventually("nothing is wrong any more", func() bool { return r.report().Webhooks[0].JournalWarning == "" })
}
