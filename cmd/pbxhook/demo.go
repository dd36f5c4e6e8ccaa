package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/receiver"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/sim"
)

//go:embed demo/webhooks.yaml
var demoManifests string

const (
	demoArrival = 30 * time.Second // within which every event must be at the target
	demoPause   = 2 * time.Second  // between rounds of calls
	demoLog     = 10_000           // arrivals that the target remembers
)

func demoCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on this machine: simulated PBXs, a receiver, a target",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), cmd.OutOrStdout(), once)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "play one call a provider, wait until all events arrived, and end")
	return cmd
}

// demo runs a receiver and a target in this process, and plays whole calls over HTTP into the one
// until they come out at the other.
func demo(ctx context.Context, out io.Writer, once bool) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	folder, err := os.MkdirTemp("", "pbxhook-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	target, err := newDemoTarget()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.server.Close()) }()

	serving := make(chan string, 1)
	options, err := demoOptions(folder, target.address, serving)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	r := receiver.New(options)
	go func() { ended <- r.Run(ctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	select {
	case address := <-serving:
		_, _ = fmt.Fprintf(out, "receiver  http://%s%sdemo/{simotel,voipstudio,acefone}\nconsole   http://%s/\ntarget    http://%s\n\n",
			address, ingest.Prefix, options.Admin, target.address)
		return play(ctx, out, address, target, once)
	case err := <-ended:
		ended <- nil
		return err
	}
}

func demoOptions(folder, target string, serving chan<- string) (receiver.Options, error) {
	judge, err := validation.New()
	if err != nil {
		return receiver.Options{}, err
	}
	file := filepath.Join(folder, "webhooks.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(demoManifests, "TARGET", target)), 0o600); err != nil {
		return receiver.Options{}, fmt.Errorf("write the demo's manifests: %w", err)
	}
	admin, err := freeAddress()
	if err != nil {
		return receiver.Options{}, err
	}
	return receiver.Options{
		Listen: "127.0.0.1:0", Admin: admin, DataDir: filepath.Join(folder, "data"), Load: loader(judge, []string{file}),
		Networks: deliver.Networks{Loopback: true}, Grace: grace, LockWait: lockWait, Log: slog.New(slog.DiscardHandler),
		Serving: func(address, _ string, _ []*v1alpha1.PBXWebhook) { serving <- address },
	}, nil
}

// freeAddress is the admin API's usual address, or another one when that is taken.
func freeAddress() (string, error) {
	for _, address := range []string{"127.0.0.1:9091", "127.0.0.1:0"} {
		if listener, err := net.Listen("tcp", address); err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", errors.New("no port is free on 127.0.0.1")
}

// demoCall is one simulated call, and what became of it.
type demoCall struct {
	provider v1alpha1.Provider
	id       string
	sent     []string // ids of the events, in the order sent
}

// play plays rounds of calls, one a provider, until ctx ends or, with once, after the first.
func play(ctx context.Context, out io.Writer, address string, target *demoTarget, once bool) error {
	var sent, delivered int
	for round := 1; ; round++ {
		calls := make([]demoCall, 0, 3)
		for _, p := range []v1alpha1.Provider{v1alpha1.Simotel, v1alpha1.VoIPstudio, v1alpha1.Acefone} {
			call, err := playCall(ctx, address, p, round)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			calls = append(calls, call)
			sent += len(call.sent)
		}
		arrived := target.await(ctx, calls)
		if ctx.Err() != nil {
			return nil
		}
		if once || round == 1 {
			table(out, calls, target)
		}
		if !arrived {
			return fmt.Errorf("not every event arrived, in order, within %s", demoArrival)
		}
		delivered = sent
		if once {
			return nil
		}
		_, _ = fmt.Fprintf(out, "\rround %d: %d events sent, %d delivered in order; Ctrl-C ends it ", round, sent, delivered)
		select {
		case <-ctx.Done():
			_, _ = fmt.Fprintln(out)
			return nil
		case <-time.After(demoPause):
		}
	}
}

// playCall sends the events of one whole call, as the provider's PBX would.
func playCall(ctx context.Context, address string, p v1alpha1.Provider, n int) (demoCall, error) {
	s, err := provider.NewSimulator(provider.Simulation{Provider: p, Username: "pbx", Password: "demo"})
	if err != nil {
		return demoCall{}, err
	}
	c := s.Call(n, time.Now())
	c.Until(sim.Ended, time.Now())
	call := demoCall{provider: p, id: c.ID}
	scenario, err := s.Scenario("answered")
	if err != nil {
		return call, err
	}
	messages, err := s.Play(scenario, n, &c)
	if err != nil {
		return call, err
	}
	to := "http://" + address + ingest.Prefix + "demo/" + strings.ToLower(string(p))
	client := &http.Client{Timeout: 10 * time.Second}
	for _, m := range messages {
		request, err := s.Request(to, m)
		if err != nil {
			return call, err
		}
		response, err := client.Do(request.WithContext(ctx))
		if err != nil {
			return call, fmt.Errorf("send %s %s: %w", p, m.Event, err)
		}
		var accepted struct {
			ID string `json:"id"`
		}
		err = json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&accepted)
		_ = response.Body.Close() // it was only read
		if err != nil || response.StatusCode != http.StatusAccepted {
			return call, fmt.Errorf("send %s %s: expected 202, got %s", p, m.Event, response.Status)
		}
		call.sent = append(call.sent, accepted.ID)
	}
	return call, nil
}

func table(out io.Writer, calls []demoCall, target *demoTarget) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "PROVIDER\tCALL\tEVENTS SENT\tEVENTS DELIVERED\tIN ORDER")
	for _, call := range calls {
		got := target.of(call)
		order := "yes"
		if !slices.Equal(got, call.sent) {
			order = "no"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", call.provider, call.id, len(call.sent), len(got), order)
	}
	_ = w.Flush() // to the same place as all else
}

// demoTarget is a service that takes CloudEvents and remembers which came for which call. At /billing it refuses
// some, and at /analytics it takes some only when they come again: so that there is something to see.
type demoTarget struct {
	server  *http.Server
	address string

	mu    sync.Mutex
	asked map[string]int // by path
	calls map[string][]string
	order []string
	news  chan struct{}
}

func newDemoTarget() (*demoTarget, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the demo's target: %w", err)
	}
	t := &demoTarget{address: listener.Addr().String(), calls: map[string][]string{}, asked: map[string]int{}, news: make(chan struct{}, 1)}
	t.server = &http.Server{Handler: http.HandlerFunc(t.take), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = t.server.Serve(listener) }() // ends with Close, which demo waits for
	return t, nil
}

func (t *demoTarget) take(w http.ResponseWriter, r *http.Request) {
	var ce struct {
		ID      string `json:"id"`
		Subject string `json:"subject"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 2*event.MaxBody)).Decode(&ce); err != nil {
		http.Error(w, "expected a CloudEvent in JSON", http.StatusBadRequest)
		return
	}
	if code, reply := t.trouble(r); code != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, reply) // who asked may be gone
		return
	}
	t.mu.Lock()
	key := strings.Trim(r.URL.Path, "/") + " " + ce.Subject
	if _, known := t.calls[key]; !known {
		t.order = append(t.order, key)
		if len(t.order) > demoLog {
			delete(t.calls, t.order[0])
			t.order = t.order[1:]
		}
	}
	t.calls[key] = append(t.calls[key], ce.ID)
	t.mu.Unlock()
	select {
	case t.news <- struct{}{}:
	default:
	}
	w.WriteHeader(http.StatusNoContent)
}

const (
	refuseEvery = 10 // of billing's events, the first one too
	delayEvery  = 3  // of analytics'
)

// trouble is why a request is not taken, where it is not.
func (t *demoTarget) trouble(r *http.Request) (code int, reply string) {
	if r.Header.Get("Pbxhook-Replay") != "" {
		return 0, ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.asked[r.URL.Path]
	t.asked[r.URL.Path]++
	switch {
	case r.URL.Path == "/billing" && n%refuseEvery == 0:
		return http.StatusUnprocessableEntity, `{"error":"no account has this number; make one, and send it again"}`
	case r.URL.Path == "/analytics" && n%delayEvery == 1:
		return http.StatusInternalServerError, `{"error":"the database was locked"}`
	}
	return 0, ""
}

// of are the ids of the events that came for a call. Two PBXs may give two calls one id.
func (t *demoTarget) of(call demoCall) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls[strings.ToLower(string(call.provider))+" "+call.id])
}

// await is whether all events of the calls arrive, in order, in time.
func (t *demoTarget) await(ctx context.Context, calls []demoCall) bool {
	late := time.After(demoArrival)
	for {
		missing := false
		for _, call := range calls {
			missing = missing || !slices.Equal(t.of(call), call.sent)
		}
		if !missing {
			return true
		}
		select {
		case <-t.news:
		case <-late:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
