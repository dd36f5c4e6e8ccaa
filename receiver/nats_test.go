package receiver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/test/certs"
	"github.com/pbxhook/pbxhook/test/natstest"
	"github.com/pbxhook/pbxhook/test/output"
)

// ordered is a target that notes the order of each call's events.
type ordered struct {
	*httptest.Server
	mu       sync.Mutex
	first    map[string][]string // by call: the events, as they came for the first time
	seen     map[string]bool
	repeated int
	refuse   string
	away     bool
}

func newOrdered(t *testing.T) *ordered {
	t.Helper()
	o := &ordered{first: map[string][]string{}, seen: map[string]bool{}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ce struct {
			ID, Subject string
			Data        struct{ Payload struct{ N string } }
		}
		body, _ := io.ReadAll(r.Body)
		if json.Unmarshal(body, &ce) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if ce.Subject == o.refuse && r.Header.Get("Pbxhook-Replay") == "" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		if o.seen[ce.ID] {
			o.repeated++
			return
		}
		o.seen[ce.ID] = true
		o.first[ce.Subject] = append(o.first[ce.Subject], ce.Data.Payload.N)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *ordered) setAway(away bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = away
}

func (o *ordered) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.seen)
}

// inOrder is whether every call's events came in the order in which they were sent.
func (o *ordered) inOrder(t *testing.T) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for call, all := range o.first {
		for i, n := range all {
			require.Equal(t, fmt.Sprint(i), n, "call %s: %v", call, all)
		}
	}
}

// problem is what the receiver says of its journal; one that is being replaced is one too.
func (r *running) problem() string {
	r.t.Helper()
	webhooks := r.report().Webhooks
	if len(webhooks) == 0 {
		return "the journal is being opened"
	}
	return webhooks[0].JournalProblem
}

func natsManifest(url, target, more string) string {
	return strings.Replace(manifest("first", at("crm", target)), "provider: Simotel", "provider: Simotel\n  journal: {nats: {url: \""+url+"\", replicas: 1, maxBytes: 64Mi"+more+"}}", 1)
}

// TestReceiversShareAJournal: each event is delivered by one of them, in order per call whichever took it; one that
// ends hands over at once; dead letters, replays, calls and the status are seen from each.
func TestReceiversShareAJournal(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	target := newOrdered(t)
	target.refuse = "refused"
	text := natsManifest(natstest.URL(servers), target.URL, "")
	var all []*running
	for range 3 {
		r := &running{t: t, file: t.TempDir() + "/manifest.yaml", data: t.TempDir(), log: &output.Text{}, admin: true}
		r.write(text)
		r.run()
		all = append(all, r)
	}
	ready := func() {
		for _, r := range all {
			r.eventually("NATS is used", func() bool { return r.problem() == "" })
		}
	}
	ready()
	const calls, each = 20, 6
	send := func(from int) {
		for n := range each {
			for call := range calls {
				all[(n+call)%len(all)].post(fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.1","exten":"9","state":"Ringing","n":"%d"}`, call+from, n))
			}
		}
	}
	send(0)
	all[0].eventually("all arrive", func() bool { return target.count() == calls*each })
	target.inOrder(t)
	require.Zero(t, target.repeated)

	last, stopped := all[2], make(chan struct{})
	go func() { last.stop(); close(stopped) }()
	defer func() { <-stopped }()
	all = all[:2]
	send(100)
	all[0].eventually("all arrive, also those of the receiver that ended", func() bool { return target.count() == 2*calls*each })
	target.inOrder(t)

	all[0].post(`{"event_name":"NewState","unique_id":"refused","exten":"9","state":"Ringing","n":"0"}`)
	for _, r := range all {
		client, err := admin.NewClient("http://" + r.adminAddress)
		require.NoError(t, err)
		id := admin.Webhook{Namespace: "crm", Name: "callcenter"}
		r.eventually("the dead letter is seen", func() bool {
			letters, err := client.DeadLetters(t.Context(), id, admin.Selection{}, 10)
			return err == nil && len(letters) == 1
		})
		r.eventually("and in the call", func() bool {
			detail, err := client.Call(t.Context(), id, "refused", "")
			return err == nil && len(detail.Events) == 1 && detail.Events[0].Deliveries[0].Outcome == admin.DeadLettered
		})
		page, err := client.Calls(t.Context(), admin.CallQuery{Limit: 500})
		require.NoError(t, err)
		require.Len(t, page.Calls, 2*calls+1)
	}
	client, err := admin.NewClient("http://" + all[1].adminAddress)
	require.NoError(t, err)
	answer, err := client.Replay(t.Context(), admin.Webhook{Namespace: "crm", Name: "callcenter"}, admin.ReplayRequest{Selection: admin.Selection{DeadLetters: true}})
	require.NoError(t, err)
	require.EqualValues(t, 1, answer.Targets["crm"])
	all[0].eventually("the replay arrives, whoever delivers it", func() bool { return target.count() == 2*calls*each+1 })
	for _, r := range all {
		client, err := admin.NewClient("http://" + r.adminAddress)
		require.NoError(t, err)
		r.eventually("the commands and the console see the whole", func() bool {
			status, err := client.Status(t.Context())
			require.NoError(t, err)
			crm := status[0].Targets[0]
			return crm.Delivered == 2*calls*each+1 && crm.Pending == 0 && crm.DeadLettered == 1
		})
	}
	all[0].eventually("the status is told in parts", func() bool {
		delivered, received := int64(0), true
		for _, r := range all {
			w := r.report().Webhooks[0]
			received = received && w.Events.Received == 2*calls*each+1 // each looks once a second
			delivered += w.Targets[0].Delivered
		}
		return received && delivered == 2*calls*each+1
	})
}

// TestNATSAway: while NATS is away the PBX is answered 503 at once, the receiver stays ready and says so; all goes
// on by itself.
func TestNATSAway(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	target := newOrdered(t)
	r := start(t, natsManifest(natstest.URL(servers), target.URL, ""))
	r.eventually("NATS is used", func() bool { return r.problem() == "" })
	r.post(`{"event_name":"NewState","unique_id":"1.1","exten":"9","state":"Ringing","n":"0"}`)
	r.eventually("delivered", func() bool { return target.count() == 1 })
	servers[0].Kill()
	r.eventually("refused", func() bool { return r.send("first") == http.StatusServiceUnavailable })
	began := time.Now()
	require.Equal(t, http.StatusServiceUnavailable, r.send("first"))
	require.Less(t, time.Since(began), 4*time.Second, "at once: it waits for no answer, which would take that long")
	require.Contains(t, r.problem(), "not reached")
	response, err := http.Get("http://" + r.status + "/readyz")
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	servers[0].Run()
	r.eventually("taken again", func() bool { return r.send("first") == http.StatusAccepted })
	r.eventually("delivered", func() bool { return target.count() == 2 })
	require.NotContains(t, r.log.String(), "panic")
}

// TestNATSStreamIsGone, or one beside it, as when servers lose their disks, or somebody deletes it: that is said, and what
// comes after is kept and delivered, by whichever receiver.
func TestNATSStreamIsGone(t *testing.T) {
	t.Parallel()
	stream := "pbxhook_crm_callcenter"
	for name, gone := range map[string]func(js jetstream.JetStream) error{
		"alone":       func(js jetstream.JetStream) error { return js.DeleteStream(t.Context(), stream) },
		"the cursors": func(js jetstream.JetStream) error { return js.DeleteKeyValue(t.Context(), stream) },
		"the leases":  func(js jetstream.JetStream) error { return js.DeleteKeyValue(t.Context(), stream+"_leases") },
		"with all else": func(js jetstream.JetStream) (err error) {
			for name := range js.StreamNames(t.Context()).Name() {
				err = errors.Join(err, js.DeleteStream(t.Context(), name))
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, 1, "")
			target := newOrdered(t)
			text := natsManifest(natstest.URL(servers), target.URL, "")
			receivers := []*running{start(t, text), start(t, text)}
			sent := 0
			send := func() {
				for n := range 5 {
					for call := range 8 {
						receivers[(n+call)%2].post(fmt.Sprintf(`{"event_name":"NewState","unique_id":"%d.%d","exten":"9","state":"Ringing","n":"%d"}`, sent/5, call, n))
					}
				}
				sent += 5 * 8
				receivers[0].eventually("all arrive", func() bool { return target.count() == sent })
			}
			for _, r := range receivers {
				r.eventually("NATS is used", func() bool { return r.problem() == "" })
			}
			send()
			conn, err := nats.Connect(natstest.URL(servers))
			require.NoError(t, err)
			defer conn.Close()
			js, err := jetstream.New(conn)
			require.NoError(t, err)
			require.NoError(t, gone(js))
			said := func(what string) bool {
				return strings.Contains(receivers[0].log.String()+receivers[1].log.String(), what)
			}
			receivers[0].eventually("it is said by who finds out first", func() bool { return said("recreated") })
			for _, r := range receivers {
				r.eventually("NATS is used again", func() bool {
					text := r.log.String() // who comes later finds the stream that the other one has recreated
					noticed := strings.Contains(text, "the stream is gone") || strings.Contains(text, "the stream is another one than it was")
					return r.problem() == "" && (noticed || !said("the stream is gone"))
				})
			}
			send()
			receivers[0].stop()
			receivers[0].run()
			receivers[0].eventually("NATS is used after a restart", func() bool { return receivers[0].problem() == "" })
			send()
			target.inOrder(t)
			for _, r := range receivers {
				require.NotContains(t, r.log.String(), "panic")
			}
		})
	}
}

// TestNATSWithoutItsCertificates: what is missing is said, the PBX is answered 503, and it heals by itself.
func TestNATSWithoutItsCertificates(t *testing.T) {
	certificate, key := certs.SelfSigned(t, "127.0.0.1")
	folder := t.TempDir()
	crtFile, keyFile := filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key")
	require.NoError(t, os.WriteFile(crtFile, []byte(certificate), 0o600))
	require.NoError(t, os.WriteFile(keyFile, []byte(key), 0o600))
	servers := natstest.Start(t, 1, fmt.Sprintf("tls { cert_file: %q, key_file: %q }", crtFile, keyFile))
	target := newOrdered(t)
	text := natsManifest(natstest.URL(servers), target.URL, ", tls: {ca: {secretKeyRef: {name: nats, key: ca.crt}}}")
	r := start(t, text)
	require.Contains(t, r.problem(), "journal.nats.tls.ca")
	require.Equal(t, http.StatusServiceUnavailable, r.send("first"))
	indented := "    " + strings.ReplaceAll(strings.TrimSpace(certificate), "\n", "\n    ")
	r.write(text + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: nats, namespace: crm}\nstringData:\n  ca.crt: |\n" + indented + "\n")
	defer func() {
		if t.Failed() {
			t.Log(r.problem(), r.log)
		}
	}()
	r.eventually("NATS is used", func() bool { return r.problem() == "" })
	require.Equal(t, http.StatusAccepted, r.send("first"))
	r.eventually("delivered", func() bool { return target.count() == 1 })
}
