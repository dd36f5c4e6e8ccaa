package receiver_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/test/natstest"
	"github.com/pbxhook/pbxhook/test/output"
)

// replayTarget refuses live events, and takes replayed ones.
type replayTarget struct {
	*httptest.Server
	mu    sync.Mutex
	taken map[string]int // replayed, by event
}

func newReplayTarget(t *testing.T) *replayTarget {
	target := &replayTarget{taken: map[string]int{}}
	target.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ce struct{ ID string }
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &ce) != nil || r.Header.Get("Pbxhook-Replay") == "" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		target.mu.Lock()
		defer target.mu.Unlock()
		target.taken[ce.ID]++
	}))
	t.Cleanup(target.Close)
	return target
}

func (r *replayTarget) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.taken)
}

// TestReplaysOnNATS: a replay is one operation over all partitions and receivers: any of them lists and cancels it,
// another one goes on with it, and the same dead letters that several people replay at once go out once.
func TestReplaysOnNATS(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	target := newReplayTarget(t)
	var all []*running
	var clients []*admin.Client
	for range 2 {
		r := &running{t: t, file: t.TempDir() + "/manifest.yaml", data: t.TempDir(), log: &output.Text{}, admin: true}
		r.write(natsManifest(natstest.URL(servers), target.URL, ""))
		r.run()
		client, err := admin.NewClient("http://" + r.adminAddress)
		require.NoError(t, err)
		all, clients = append(all, r), append(clients, client)
	}
	id := admin.Webhook{Namespace: "crm", Name: "callcenter"}
	const events = 60
	for i, r := range all {
		r.eventually("NATS is used", func() bool { return r.problem() == "" })
		for n := range events / len(all) {
			r.post(fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.%d","exten":"9","state":"Ringing"}`, i, n))
		}
	}
	letters := func(c *admin.Client) int {
		found, err := c.DeadLetters(t.Context(), id, admin.Selection{}, 1000)
		require.NoError(t, err)
		return len(found)
	}
	all[0].eventually("all are given up", func() bool { return letters(clients[0]) == events })

	request := admin.ReplayRequest{Selection: admin.Selection{DeadLetters: true}, Rate: 0.001, By: "someone"}
	begun, err := clients[0].Replay(t.Context(), id, request)
	require.NoError(t, err)
	require.EqualValues(t, events, begun.Targets["crm"])
	state := func(c *admin.Client, replay string) (found admin.ReplayState) {
		replays, err := c.Replays(t.Context(), id)
		require.NoError(t, err)
		for _, one := range replays {
			if one.ID == replay {
				found = one
			}
		}
		return found
	}
	for i, c := range clients {
		all[i].eventually("it goes on", func() bool { return state(c, begun.ID).Done > 0 })
		s := state(c, begun.ID)
		require.EqualValues(t, events, s.Total)
		require.Equal(t, admin.ReplayRunning, s.Phase)
		require.Equal(t, "someone", s.By)
		require.Equal(t, "dead letters", s.What)
		require.InDelta(t, 0.001, s.Rate, 0)
		require.Equal(t, []string{"crm"}, s.Names())
	}
	all[0].stop() // the other one goes on with it
	s := state(clients[1], begun.ID)
	require.Equal(t, admin.ReplayRunning, s.Phase)
	require.EqualValues(t, events, s.Total)
	_, err = clients[1].CancelReplay(t.Context(), id, begun.ID)
	require.NoError(t, err)
	all[1].eventually("it is canceled in all partitions", func() bool { return state(clients[1], begun.ID).Phase == admin.ReplayCanceled })
	s = state(clients[1], begun.ID)
	require.Positive(t, s.Remaining)
	require.EqualValues(t, events, s.Total)
	_, err = clients[1].CancelReplay(t.Context(), id, "nothing")
	require.ErrorIs(t, err, admin.ErrNotFound)

	all[0].run()
	clients[0], err = admin.NewClient("http://" + all[0].adminAddress)
	require.NoError(t, err)
	all[0].eventually("NATS is used", func() bool { return all[0].problem() == "" })
	request.Rate = 0
	var people sync.WaitGroup
	for i := range 3 {
		people.Go(func() {
			if _, err := clients[i%2].Replay(t.Context(), id, request); err != nil {
				t.Errorf("replay: %v", err)
			}
		})
	}
	people.Wait()
	all[0].eventually("all have gone out", func() bool { return target.count() == events && letters(clients[0]) == 0 })
	for i, c := range clients {
		all[i].eventually("all replays have ended", func() bool {
			replays, err := c.Replays(t.Context(), id)
			require.NoError(t, err)
			for _, one := range replays {
				if one.Phase == admin.ReplayRunning {
					return false
				}
			}
			return true
		})
	}
	target.mu.Lock()
	defer target.mu.Unlock()
	for event, times := range target.taken {
		require.Equal(t, 1, times, event)
	}
}
