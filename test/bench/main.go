// The receiver's benchmark: pbxhook and its peers do the same work on loopback in one run, in turns, and are
// compared within each round; then what an event costs as other things grow. The client and the target are in
// this process, the system under test in its own.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"
)

// Result is what a run found out.
type Result struct {
	Machine string   `json:"machine"`
	Date    string   `json:"date"`
	Rows    []Row    `json:"rows"`
	Small   Small    `json:"small"`
	Console Console  `json:"console"`
	Shared  []Shared `json:"shared"`
	Growth  []Series `json:"growth"`
}

type options struct {
	programs       programs
	events         int // a round, as fast as it goes
	seconds        int // at the fixed rate
	rounds         int
	backlog        int
	folder         string // where journals lie: on a disk, not in memory
	only, out, doc string
}

const timeLimit = 40 * time.Minute

func main() {
	o := options{}
	flag.IntVar(&o.events, "events", 40_000, "events a round, as fast as it goes")
	flag.IntVar(&o.seconds, "seconds", 10, "seconds a round, at the fixed rate")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds")
	flag.IntVar(&o.backlog, "backlog", 1_000_000, "events of the largest backlog")
	flag.StringVar(&o.programs.receiver, "receiver", "bin/receiver", "the program")
	flag.StringVar(&o.programs.bento, "bento", "bin/bento", "the program; without it there is no such peer")
	flag.StringVar(&o.programs.nats, "nats-server", "bin/nats-server", "the program")
	flag.StringVar(&o.programs.stream, "stream", "bin/stream", "the program that makes bento's stream")
	flag.StringVar(&o.folder, "folder", "dist", "folder for journals, on a disk")
	flag.StringVar(&o.only, "only", "", "compare, small, console, shared or growth; empty: all")
	flag.StringVar(&o.out, "out", "dist/bench.json", "file for the result")
	flag.StringVar(&o.doc, "doc", "", "file for the result, for people; empty: none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	result := Result{Machine: machine(), Date: time.Now().UTC().Format(time.DateOnly)}
	wanted := func(part string) bool { return o.only == "" || o.only == part }
	all := systems(o.programs)
	if _, err := os.Stat(o.programs.bento); err != nil {
		fmt.Printf("no %s: pbxhook is not compared with bento\n", o.programs.bento)
		all = slices.DeleteFunc(all, func(s system) bool { return s.name == bentoNATS || s.name == bentoNATSSync })
	}
	if wanted("compare") {
		if result.Rows, err = compare(ctx, all, o); err != nil {
			return err
		}
		if err := printTable(result.Rows); err != nil {
			return err
		}
	}
	if wanted("small") {
		if result.Small, err = small(ctx, o); err != nil {
			return err
		}
		fmt.Printf("first 202 after %.0f ms, %.1f MiB idle, the program has %.1f MiB; the disk keeps 16 KiB in %.2f ms, p99 %.2f\n",
			result.Small.FirstAcceptedMs, result.Small.IdleRSSMiB, result.Small.ReceiverMiB, result.Small.DiskP50Ms, result.Small.DiskP99Ms)
	}
	if wanted("console") {
		if result.Console, err = consoleCost(ctx, o); err != nil {
			return err
		}
		fmt.Printf("with the console and the delivery log %.2f of the events are accepted, and %.2f delivered (%d pages were looked at)\n",
			result.Console.OfPlainAccepted, result.Console.OfPlainDelivered, result.Console.Pages)
	}
	if _, err := os.Stat(o.programs.nats); err == nil && wanted("shared") {
		if result.Shared, err = sharedCost(ctx, o); err != nil {
			return err
		}
	}
	if wanted("growth") {
		if result.Growth, err = growth(ctx, o); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if err := os.WriteFile(o.out, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if o.doc == "" || o.only != "" {
		return nil
	}
	return document(o.doc, result)
}
