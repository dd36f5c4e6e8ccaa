package receiver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/natstest"
)

// TestNATSEventsVanish before a target had them: they are counted and reported, and later ones are delivered.
func TestNATSEventsVanish(t *testing.T) {
	t.Parallel()
	const events = 40
	purge := func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error { return s.Purge(t.Context()) }
	discard := func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error {
		config := s.CachedInfo().Config
		config.Discard, config.MaxMsgs = jetstream.DiscardOld, 10
		_, err := js.UpdateStream(t.Context(), config)
		return err
	}
	for name, test := range map[string]struct {
		lose      func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error
		suspended bool // the target; else it is down
		stopped   bool // no receiver runs meanwhile
		report    string
		left      int
	}{
		"purged, target down":                           {lose: purge, report: "40 events that target crm did not have yet"},
		"purged, target suspended":                      {lose: purge, suspended: true, report: "40 events that target crm did not have yet"},
		"discard old, target down":                      {lose: discard, report: "30 events that target crm did not have yet", left: 10},
		"discard old, target suspended":                 {lose: discard, suspended: true, report: "30 events that target crm did not have yet", left: 10},
		"purged without receivers, target down":         {lose: purge, stopped: true, report: "at most "},
		"purged without receivers, target is suspended": {lose: purge, suspended: true, stopped: true, report: "at most "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, 1, "")
			target := newOrdered(t)
			text := natsManifest(natstest.URL(servers), target.URL, "")
			suspended := strings.Replace(text, "name: crm", "name: crm, suspend: true", 1)
			first := text
			if test.suspended {
				require.NotEqual(t, text, suspended)
				first = suspended
			}
			target.setAway(true)
			r := start(t, first)
			r.eventually("NATS is used", func() bool { return r.problem() == "" })
			for call := range events {
				body := fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.1","exten":"9","state":"Ringing","n":"0"}`, call)
				r.eventually("it is accepted", func() bool { return r.tryPost(body) })
			}
			r.eventually("all wait", func() bool {
				return len(r.report().Webhooks[0].Targets) == 1 && r.report().Webhooks[0].Targets[0].Pending == events
			})
			if test.stopped {
				r.stop()
			}
			conn, err := nats.Connect(natstest.URL(servers))
			require.NoError(t, err)
			defer conn.Close()
			js, err := jetstream.New(conn)
			require.NoError(t, err)
			stream, err := js.Stream(t.Context(), "pbxhook_crm_callcenter")
			require.NoError(t, err)
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(r.log)
				}
			})
			require.NoError(t, test.lose(t, js, stream))
			if test.stopped {
				r.run()
			}
			r.eventually("it is reported", func() bool {
				report := r.report()
				return len(report.Webhooks) > 0 && strings.HasPrefix(report.Webhooks[0].JournalDamage, test.report)
			})
			target.setAway(false)
			r.write(text)
			for call := range 10 {
				body := fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.2","exten":"9","state":"Ringing","n":"0"}`, call)
				r.eventually("it is accepted", func() bool { return r.tryPost(body) })
			}
			r.eventually("what is stored arrives, beside what a receiver remembers", func() bool { return target.count() >= test.left+10 })
			r.eventually("nothing waits", func() bool { return r.report().Webhooks[0].Targets[0].Pending == 0 })
			require.Equal(t, 1, strings.Count(r.log.String(), "did not have yet"), "once")
		})
	}
}
