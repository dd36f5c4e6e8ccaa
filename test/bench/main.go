// The receiver's benchmark: pbxhook and its peers do the same work on loopback in one run, in turns, and are
// compared within each round.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/pbxhook/pbxhook/test/bench/proc"
)

// Row is what a run found out about one system: medians of the rounds. Ratios were divided within each round.
type Row struct {
	System             string  `json:"system"`
	OfNginxAccepted    float64 `json:"ofNginxAccepted"`
	OfNginxDelivered   float64 `json:"ofNginxDelivered"`
	AcceptedPerSecond  float64 `json:"acceptedPerSecond"`
	DeliveredPerSecond float64 `json:"deliveredPerSecond"`
	AcceptP50Ms        float64 `json:"acceptP50Ms"`
	AcceptP99Ms        float64 `json:"acceptP99Ms"`
	EndToEndP50Ms      float64 `json:"endToEndP50Ms"`
	EndToEndP99Ms      float64 `json:"endToEndP99Ms"`
	CPUMicrosPerEvent  float64 `json:"cpuMicrosPerEvent"`
	RSSMiB             float64 `json:"rssMiB"`
	Lost               int     `json:"lost"`
	Repeated           int     `json:"repeated"`
}

// What a round does: as fast as it goes, and then at a rate, for latencies.
const (
	fixedRate    = 1000 // events a second
	fixedSeconds = 10
	timeLimit    = 20 * time.Minute
)

func main() {
	events := flag.Int("events", 40_000, "events a round, as fast as it goes")
	rounds := flag.Int("rounds", 3, "rounds")
	pbxhook := flag.String("pbxhook", "bin/pbxhook", "the program")
	folder := flag.String("folder", "dist", "where journals lie: on a disk, not in memory")
	out := flag.String("out", "dist/bench.json", "file for the result")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	if err := run(ctx, *events, *rounds, *pbxhook, *folder, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, events, rounds int, pbxhook, folder, out string) error {
	byRound := make([]map[string]Row, rounds)
	all := systems(pbxhook)
	for round := range byRound {
		byRound[round] = map[string]Row{}
		for _, s := range all {
			row, err := measure(ctx, s, events, folder)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Printf("round %d: %-12s %6.0f accepted/s, %6.0f delivered/s, %4.0f µs CPU an event\n", round+1, s.name, row.AcceptedPerSecond, row.DeliveredPerSecond, row.CPUMicrosPerEvent)
			byRound[round][s.name] = row
		}
	}
	var rows []Row
	for _, s := range all {
		rows = append(rows, median(s.name, byRound))
	}
	if err := table(rows); err != nil {
		return err
	}
	data, err := json.MarshalIndent(map[string]any{"rows": rows}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return os.WriteFile(out, append(data, '\n'), 0o644)
}

// measure has one system do its work once.
func measure(ctx context.Context, s system, events int, folder string) (row Row, err error) {
	own, err := os.MkdirTemp(folder, "bench-"+s.name+"-")
	if err != nil {
		return row, fmt.Errorf("make a folder: %w", err)
	}
	if own, err = filepath.Abs(own); err != nil {
		return row, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(own)) }()
	total := events + fixedRate*fixedSeconds
	target, err := startTarget(total)
	if err != nil {
		return row, err
	}
	defer target.stop()
	url, process, err := s.start(ctx, own, target.url)
	if process != nil {
		defer process.Stop()
	}
	if err != nil {
		return row, err
	}
	c, err := newClient(url, total)
	if err != nil {
		return row, err
	}
	row.System = s.name
	if err := atFullSpeed(ctx, c, target, &row, events, process); err != nil {
		return row, err
	}
	if err := c.send(ctx, target.start, events, total, fixedRate); err != nil {
		return row, err
	}
	target.wait(ctx, total)
	latencies(c, target, &row, events, total)
	for n := range total {
		if c.answered[n] != 0 && target.arrived[n].Load() == 0 {
			row.Lost++
		}
	}
	row.Repeated = int(target.again.Load())
	return row, nil
}

func atFullSpeed(ctx context.Context, c *client, target *target, row *Row, events int, process *proc.Process) error {
	var before time.Duration
	if process != nil {
		before = process.CPU()
	}
	begin := time.Since(target.start)
	if err := c.send(ctx, target.start, 0, events, 0); err != nil {
		return err
	}
	accepted := 0
	for n := range events {
		if c.answered[n] != 0 {
			accepted++
		}
	}
	row.AcceptedPerSecond = float64(accepted) / (time.Since(target.start) - begin).Seconds()
	target.wait(ctx, accepted)
	last := int64(0)
	for n := range events {
		last = max(last, target.arrived[n].Load())
	}
	row.DeliveredPerSecond = float64(target.count.Load()) / (time.Duration(last) - begin).Seconds()
	if process != nil {
		row.CPUMicrosPerEvent = float64((process.CPU() - before).Microseconds()) / float64(events)
		row.RSSMiB = process.MiB("VmHWM")
	}
	return nil
}

func latencies(c *client, target *target, row *Row, from, to int) {
	var accept, arrive []time.Duration
	for n := from; n < to; n++ {
		if c.answered[n] != 0 {
			accept = append(accept, c.answered[n]-c.sent[n])
		}
		if at := target.arrived[n].Load(); at != 0 {
			arrive = append(arrive, time.Duration(at)-c.sent[n])
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	row.AcceptP50Ms, row.AcceptP99Ms = ms(percentile(accept, 50)), ms(percentile(accept, 99))
	row.EndToEndP50Ms, row.EndToEndP99Ms = ms(percentile(arrive, 50)), ms(percentile(arrive, 99))
}

// median makes one row of a system's rounds.
func median(name string, rounds []map[string]Row) Row {
	of := func(value func(r, nginx Row) float64) float64 {
		var values []float64
		for _, round := range rounds {
			values = append(values, value(round[name], round["nginx-proxy"]))
		}
		slices.Sort(values)
		return math.Round(values[len(values)/2]*100) / 100
	}
	row := Row{
		System:             name,
		OfNginxAccepted:    of(func(r, nginx Row) float64 { return r.AcceptedPerSecond / nginx.AcceptedPerSecond }),
		OfNginxDelivered:   of(func(r, nginx Row) float64 { return r.DeliveredPerSecond / nginx.DeliveredPerSecond }),
		AcceptedPerSecond:  of(func(r, _ Row) float64 { return r.AcceptedPerSecond }),
		DeliveredPerSecond: of(func(r, _ Row) float64 { return r.DeliveredPerSecond }),
		AcceptP50Ms:        of(func(r, _ Row) float64 { return r.AcceptP50Ms }),
		AcceptP99Ms:        of(func(r, _ Row) float64 { return r.AcceptP99Ms }),
		EndToEndP50Ms:      of(func(r, _ Row) float64 { return r.EndToEndP50Ms }),
		EndToEndP99Ms:      of(func(r, _ Row) float64 { return r.EndToEndP99Ms }),
		CPUMicrosPerEvent:  of(func(r, _ Row) float64 { return r.CPUMicrosPerEvent }),
		RSSMiB:             of(func(r, _ Row) float64 { return r.RSSMiB }),
	}
	for _, round := range rounds { // none may be lost in any
		row.Lost += round[name].Lost
		row.Repeated += round[name].Repeated
	}
	return row
}

func table(rows []Row) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "system\taccepted/s\tof nginx\tdelivered/s\tof nginx\taccept p50\tp99 ms\tend to end p50\tp99 ms\tCPU µs\tMiB\tlost\trepeated\t")
	for _, r := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%d\t%d\t\n", r.System, r.AcceptedPerSecond, r.OfNginxAccepted,
			r.DeliveredPerSecond, r.OfNginxDelivered, r.AcceptP50Ms, r.AcceptP99Ms, r.EndToEndP50Ms, r.EndToEndP99Ms, r.CPUMicrosPerEvent, r.RSSMiB, r.Lost, r.Repeated)
	}
	return w.Flush()
}
