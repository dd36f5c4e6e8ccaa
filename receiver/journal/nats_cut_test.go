package journal

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/natstest"
)

// TestNATSCutOffIsNotReady where a server of several is reached that does not answer for longer than an election takes,
// and is ready where none is reached, where there is only one, and where publishes succeed.
func TestNATSCutOffIsNotReady(t *testing.T) {
	t.Parallel()
	unanswered := &failing{count: 3, err: errors.New("no answer")}
	for name, test := range map[string]struct {
		servers int
		heard   time.Duration // ago
		failing bool
		away    bool
		cutOff  bool
	}{
		"silent":               {servers: 2, heard: time.Minute, failing: true, cutOff: true},
		"an election":          {servers: 2, heard: time.Second, failing: true},
		"publishes succeed":    {servers: 2, heard: time.Minute},
		"one server":           {servers: 1, heard: time.Minute, failing: true},
		"no server is reached": {servers: 2, heard: time.Minute, failing: true, away: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, 1, "")
			url := natstest.URL(servers)
			if test.servers > 1 {
				url += ",nats://127.0.0.1:1"
			}
			n := &NATS{options: NATSOptions{URL: url, Log: slog.New(slog.DiscardHandler)}, failing: map[task]*failing{}, said: map[string]time.Time{}, doubt: make(chan struct{}, 1), heard: time.Now().Add(-test.heard)}
			n.ctx, n.stop = t.Context(), func() {}
			n.api = apiOf(&n.options)
			require.NoError(t, n.connect())
			defer n.conn().Close()
			require.Eventually(t, n.conn().IsConnected, time.Minute, 10*time.Millisecond)
			if test.away {
				servers[0].Kill()
				require.Eventually(t, func() bool { return !n.conn().IsConnected() }, time.Minute, 10*time.Millisecond)
			}
			if test.failing {
				f := *unanswered
				f.since, f.last = time.Now().Add(-time.Minute), time.Now()
				n.failing[publishing] = &f
			}
			require.Equal(t, test.cutOff, n.CutOff())
		})
	}
}
