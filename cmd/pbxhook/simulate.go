package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/sim"
)

const (
	maxCalls      = 1_000_000
	simultaneous  = 32 // calls under way at once
	answerTimeout = 30 * time.Second
)

// simulation is what `pbxhook simulate` was told.
type simulation struct {
	*provider.Simulator
	to        string
	zone      *time.Location
	scenarios []sim.Scenario
	calls     int
	rate      float64
}

func simulateCommand() *cobra.Command {
	var pbx pbxFlags
	var calls int
	var callRate float64
	var scenarios []string
	var list bool
	var seed uint64
	cmd := &cobra.Command{
		Use:   "simulate PROVIDER --to URL",
		Short: "Play whole calls as a PBX would, and count the answers",
		Long: "Play whole calls as a PBX would, and count the answers. Calls run side by side, the events of one call\n" +
			"one after the other. Without --scenario all calls that the PBX can make are played in turn.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, to, zone, err := pbx.simulator(args[0], seed)
			if err != nil {
				return err
			}
			if list {
				return listSimulator(cmd.OutOrStdout(), s)
			}
			if calls < 1 || calls > maxCalls {
				return fmt.Errorf("--calls: expected 1 to %d, got %d", maxCalls, calls)
			}
			if callRate < 0 {
				return fmt.Errorf("--rate: expected calls a second, or 0 for as fast as they are answered, got %g", callRate)
			}
			chosen := s.Scenarios()
			if len(scenarios) > 0 {
				chosen = nil
			}
			for _, name := range scenarios {
				scenario, err := s.Scenario(name)
				if err != nil {
					return fmt.Errorf("--scenario: %w", err)
				}
				chosen = append(chosen, scenario)
			}
			run := simulation{Simulator: s, to: to, zone: zone, scenarios: chosen, calls: calls, rate: callRate}
			return run.play(cmd)
		},
	}
	pbx.add(cmd)
	flags := cmd.Flags()
	flags.IntVar(&calls, "calls", 10, "number of calls")
	flags.Float64Var(&callRate, "rate", 0, "calls that begin a second (default: as fast as they are answered)")
	flags.StringSliceVar(&scenarios, "scenario", nil, "a call to play, such as missed; may be given several times (see --list)")
	flags.BoolVar(&list, "list", false, "list the calls, events and quirks of this PBX, and send nothing")
	flags.Uint64Var(&seed, "seed", 1, "the same seed makes the same calls")
	cmd.MarkFlagsOneRequired("to", "list")
	return cmd
}

// listSimulator shows what a simulated PBX can do.
func listSimulator(out io.Writer, s *provider.Simulator) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(kind, name, about string) { _, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", kind, name, about) }
	for _, scenario := range s.Scenarios() {
		line("scenario", scenario.Name, scenario.About)
	}
	for _, quirk := range s.Quirks() {
		line("quirk", quirk.Name, quirk.About)
	}
	for _, event := range s.Events() {
		line("event", event, "")
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the list: %w", err)
	}
	return nil
}

// tally counts what became of messages.
type tally struct {
	mu      sync.Mutex
	sent    int
	answers map[string]int // by status, or by what went wrong
	failed  int
}

func (t *tally) add(answer string, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	t.answers[answer]++
	if !taken {
		t.failed++
	}
}

func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// play plays the calls and says what became of their events. It fails when one was not taken.
func (s *simulation) play(cmd *cobra.Command) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	limit := rate.NewLimiter(rate.Inf, 1)
	if s.rate > 0 {
		limit = rate.NewLimiter(rate.Limit(s.rate), 1)
	}
	t := &tally{answers: map[string]int{}}
	client := &http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: simultaneous, DisableCompression: true}}
	defer client.CloseIdleConnections()
	room := make(chan struct{}, simultaneous)
	var wg sync.WaitGroup
	begin, begun := time.Now(), 0
	stop := progress(cmd, func() string { return fmt.Sprintf("%d events sent", t.count()) })
	for n := 1; n <= s.calls && limit.Wait(ctx) == nil; n++ {
		room <- struct{}{}
		begun++
		wg.Go(func() {
			defer func() { <-room }()
			s.call(ctx, client, n, t)
		})
	}
	wg.Wait()
	stop()
	_, _ = fmt.Fprintf(out, "%d calls, %d events in %s\n", begun, t.sent, time.Since(begin).Round(time.Millisecond))
	for _, answer := range slices.Sorted(maps.Keys(t.answers)) {
		_, _ = fmt.Fprintf(out, "%7d  %s\n", t.answers[answer], answer)
	}
	if t.failed > 0 {
		return fmt.Errorf("%d of %d events were not taken", t.failed, t.sent)
	}
	return ctx.Err()
}

// call sends the events of one call, one after the other.
func (s *simulation) call(ctx context.Context, client *http.Client, n int, t *tally) {
	now := time.Now().In(s.zone)
	c := s.Call(n, now)
	c.Until(sim.Ended, now)
	messages, err := s.Play(s.scenarios[(n-1)%len(s.scenarios)], n, &c)
	if err != nil {
		t.add(err.Error(), false)
		return
	}
	for _, m := range messages {
		t.add(s.send(ctx, client, m))
	}
}

func (s *simulation) send(ctx context.Context, client *http.Client, m sim.Message) (answer string, taken bool) {
	request, err := s.Request(s.to, m)
	if err != nil {
		return err.Error(), false
	}
	response, err := client.Do(request.WithContext(ctx))
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause // without the URL, which may hold a token
		}
		return "no answer: " + err.Error(), false
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)); err != nil {
		return "the answer broke off", false
	}
	return response.Status, response.StatusCode/100 == 2
}
