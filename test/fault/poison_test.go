package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// poisonKinds are what a target does to the events of a call that it does not take.
var poisonKinds = map[string]http.HandlerFunc{
	"reset": func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.(*net.TCPConn).SetLinger(0) // Close resets
			_ = c.Close()
		}
	},
	"time-out": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"429":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
	"500":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
	"502":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
	"503":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
	"504":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGatewayTimeout) },
}

// arrivals are when good events were sent, and how long they took to the target.
type arrivals struct {
	mu   sync.Mutex
	sent map[string]time.Time
	took []time.Duration
}

func (a *arrivals) send(call string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent[call] = time.Now()
}

func (a *arrivals) arrived(call string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if sent, ok := a.sent[call]; ok {
		a.took = append(a.took, time.Since(sent))
		delete(a.sent, call) // it may come again
	}
}

func (a *arrivals) missing() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.sent)
}

// TestPoisonedCalls: twenty calls that the target does not take, of each kind, keep no event of other calls from
// arriving, with the default settings.
func TestPoisonedCalls(t *testing.T) {
	t.Parallel()
	const poisoned, good, interval = 20, 240, 250 * time.Millisecond
	s := newSetup(t, quick)
	all := map[string]*arrivals{}
	mux := http.NewServeMux()
	var manifest strings.Builder
	target := httptest.NewServer(mux)
	t.Cleanup(target.Close)
	t.Cleanup(target.CloseClientConnections) // those that wait for their time-out
	for kind, poison := range poisonKinds {
		came := &arrivals{sent: map[string]time.Time{}}
		all[kind] = came
		mux.HandleFunc("/"+kind, func(w http.ResponseWriter, r *http.Request) {
			var event struct{ Subject string }
			if body, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(body, &event) != nil {
				return
			}
			if strings.HasPrefix(event.Subject, "poisoned") {
				poison(w, r)
				return
			}
			came.arrived(event.Subject)
		})
		fmt.Fprintf(&manifest, `---
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: p-%s}
spec: {provider: Simotel, credentials: {anonymous: {}}, targets: [{name: crm, url: "%s/%s"}]}
`, kind, target.URL, kind)
	}
	require.NoError(t, os.WriteFile(s.manifest, []byte(manifest.String()), 0o600))
	s.start()
	var senders sync.WaitGroup
	failed := make(chan error, len(all))
	for kind, came := range all {
		senders.Go(func() { failed <- sendPoisoned(t.Context(), s.hooks, kind, came, poisoned, good, interval) })
	}
	senders.Wait()
	for range all {
		require.NoError(t, <-failed)
	}
	for kind, came := range all {
		require.Eventually(t, func() bool { return came.missing() == 0 }, patience, 50*time.Millisecond, "good events beside %s", kind)
		slices.Sort(came.took)
		t.Logf("beside %d calls with %s: %d events of other calls arrived, p95 %s, the last after %s", poisoned, kind, len(came.took),
			came.took[len(came.took)*95/100].Round(time.Millisecond), came.took[len(came.took)-1].Round(time.Millisecond))
	}
}

// sendPoisoned sends the poisoned calls' events at once, then those of good calls one by one.
func sendPoisoned(ctx context.Context, hooks, kind string, came *arrivals, poisoned, good int, interval time.Duration) error {
	send := func(call string) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+hooks+"/hooks/default/p-"+kind,
			strings.NewReader(fmt.Sprintf(`{"event_name":"Cdr","unique_id":%q}`, call)))
		if err != nil {
			return fmt.Errorf("make the request: %w", err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return fmt.Errorf("send an event: %w", err)
		}
		defer func() { _ = response.Body.Close() }() // the status says it all
		if response.StatusCode != http.StatusAccepted {
			return fmt.Errorf("send an event: want 202, got %d", response.StatusCode)
		}
		return nil
	}
	for i := range poisoned {
		if err := send(fmt.Sprint("poisoned", i)); err != nil {
			return err
		}
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := range good {
		<-tick.C
		call := fmt.Sprint("good", i)
		came.send(call)
		if err := send(call); err != nil {
			return err
		}
	}
	return nil
}
