package receiver_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/receiver"
	"github.com/pbxhook/pbxhook/test/natstest"
)

// moving is a webhook whose journal changes its kind.
type moving struct {
	*running
	target *ordered
	sent   int
}

const movingCalls = 5

// send sends the next events of each call.
func (m *moving) send(each int) {
	m.t.Helper()
	for range each {
		for call := range movingCalls {
			m.post(fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.1","exten":"9","state":"Ringing","n":"%d"}`, call, m.sent/movingCalls))
			m.sent++
		}
	}
}

func (m *moving) draining() *statusz.Draining {
	m.t.Helper()
	webhooks := m.report().Webhooks
	if len(webhooks) == 0 {
		return nil
	}
	return webhooks[0].Draining
}

// arrive waits until all have arrived, in order, and the journal before is done with.
func (m *moving) arrive(t *testing.T) {
	t.Helper()
	m.target.setAway(false)
	m.eventually("all arrive", func() bool { return m.target.count() == m.sent })
	m.target.inOrder(t)
	m.eventually("the journal before is done with", func() bool { return m.draining() == nil })
	require.Zero(t, m.target.repeated)
}

// TestJournalMoves from embedded to NATS and back, with events that wait in the one before: they go first, whether the
// receiver goes on or is another one, and how far it is is said.
func TestJournalMoves(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	target := newOrdered(t)
	embedded := manifest("first", at("crm", target.URL))
	shared := natsManifest(natstest.URL(servers), target.URL, "")
	before := fmt.Sprintf(`{"url":%q,"replicas":1,"maxBytes":"64Mi"}`, natstest.URL(servers))
	m := &moving{running: start(t, embedded), target: target}
	m.send(1)
	m.eventually("it works", func() bool { return target.count() == m.sent })

	for name, move := range map[string]func(text string){
		"the receiver goes on": m.write,
		"another receiver": func(text string) {
			m.stop()
			m.write(text)
			m.run()
		},
	} {
		for _, text := range []string{shared, strings.Replace(embedded, "namespace: crm}", fmt.Sprintf("namespace: crm, annotations: {pbxhook.io/journal-before: %q}}", before), 1)} {
			target.setAway(true)
			waiting := 3 * movingCalls
			m.send(3)
			hash := m.report().ConfigHash
			move(text)
			m.eventually(name+": it moves", func() bool { return m.draining() != nil && m.report().ConfigHash != hash })
			m.eventually("the new journal can be used", func() bool { return m.problem() == "" })
			m.send(2)
			m.eventually("how far it is is said", func() bool {
				d := m.draining()
				return d != nil && d.Pending == int64(waiting) && m.report().Webhooks[0].Events.Pending == int64(waiting+2*movingCalls)
			})
			time.Sleep(100 * time.Millisecond) // the target may be asked, and must not get the new ones
			m.arrive(t)
			m.send(1)
			m.eventually("then it works", func() bool { return target.count() == m.sent })
		}
	}
	require.NotContains(t, m.log.String(), "panic")
}

// TestJournalGoesBackOnItsWay: who takes a move back while events wait in the journal before loses none, and nobody is
// refused; all else of the change is in force at once. It goes back when they are delivered.
func TestJournalGoesBackOnItsWay(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	target := newOrdered(t)
	embedded := manifest("first", at("crm", target.URL))
	shared := natsManifest(natstest.URL(servers), target.URL, "")
	m := &moving{running: start(t, embedded), target: target}
	target.setAway(true)
	m.send(2)
	m.write(shared)
	m.eventually("it moves", func() bool { return m.draining() != nil })
	m.send(2)
	m.write(strings.Replace(embedded, "targets: [", `targets: [{name: other, url: "http://127.0.0.1:1/"}, `, 1))
	m.eventually("it is said that it cannot go back yet", func() bool {
		return strings.Contains(m.report().RefusedReason, "PBXWebhook crm/callcenter: the journal before this one is not delivered yet")
	})
	require.Len(t, m.report().Webhooks[0].Targets, 2)
	m.send(2)
	m.write(embedded)
	m.eventually("the target is gone again", func() bool { return len(m.report().Webhooks[0].Targets) == 1 })
	m.arrive(t)
	m.eventually("it goes back", func() bool { return m.report().RefusedReason == "" })
	m.send(2)
	m.arrive(t)
	servers[0].Kill()
	m.send(1)
	m.eventually("without NATS", func() bool { return target.count() == m.sent })
}

// TestJournalDoesNotMoveToWhatIsNotThere: it keeps the one that it has, says why, and goes when it can.
func TestJournalDoesNotMoveToWhatIsNotThere(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	servers[0].Kill()
	target := newOrdered(t)
	m := &moving{running: start(t, manifest("first", at("crm", target.URL))), target: target}
	m.write(natsManifest(natstest.URL(servers), target.URL, ""))
	m.eventually("it is refused", func() bool { return m.report().RefusedReason != "" })
	require.Contains(t, m.report().RefusedReason, "it keeps the one that it has: NATS is not reached")
	m.send(2)
	m.eventually("all goes on", func() bool { return target.count() == m.sent })
	servers[0].Run()
	m.eventually("it goes when it can", func() bool { return m.report().RefusedReason == "" })
	m.send(2)
	m.arrive(t)
	servers[0].Kill()
	m.eventually("it has moved", func() bool { return m.running.send("first") == http.StatusServiceUnavailable })
}

// TestJournalBeforeIsLost: new events do not wait for ever for a journal before that cannot be read.
func TestJournalBeforeIsLost(t *testing.T) {
	receiver.SetPatience(t, 2*time.Second)
	target := newOrdered(t)
	text := strings.Replace(manifest("first", at("crm", target.URL)), "namespace: crm}", `namespace: crm, annotations: {pbxhook.io/journal-before: '{"url":"nats://127.0.0.1:1"}'}}`, 1)
	m := &moving{running: start(t, text), target: target}
	m.send(2)
	m.eventually("it says what it waits for", func() bool { d := m.draining(); return d != nil && strings.Contains(d.Problem, "not reached") })
	require.Zero(t, target.count())
	m.eventually("they arrive", func() bool { return target.count() == m.sent })
	target.inOrder(t)
	require.NotNil(t, m.draining(), "it has not been read")
}
