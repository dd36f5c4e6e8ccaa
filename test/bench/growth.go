package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Series is how something grows with something else.
type Series struct {
	Title  string  `json:"title"`
	Axis   string  `json:"axis"`
	Points []Point `json:"points"`
}

// Point is one measurement of a series.
type Point struct {
	Label              string  `json:"label"`
	CPUMicrosPerEvent  float64 `json:"cpuMicrosPerEvent"`
	DeliveredPerSecond float64 `json:"deliveredPerSecond"` // to all targets
	RSSMiB             float64 `json:"rssMiB"`
}

// growth is what an event costs the receiver as other things grow.
func growth(ctx context.Context, o options) ([]Series, error) {
	targets, webhooks := Series{Title: "Targets of a webhook", Axis: "targets"}, Series{Title: "Webhooks in one receiver", Axis: "webhooks"}
	sizes, backlogs := Series{Title: "Length of a request", Axis: "bytes"}, Series{Title: "Backlog that is drained", Axis: "events"}
	add := func(s *Series, label string, c cost, err error) error {
		if err != nil {
			return fmt.Errorf("%s %s: %w", label, s.Axis, err)
		}
		s.Points = append(s.Points, Point{Label: label, CPUMicrosPerEvent: c.cpuMicros, DeliveredPerSecond: c.deliveredPerSecond, RSSMiB: c.mib})
		fmt.Printf("%8s %-8s %5.0f µs CPU an event, %6.0f delivered/s, %3.0f MiB\n", label, s.Axis, c.cpuMicros, c.deliveredPerSecond, c.mib)
		return nil
	}
	for _, n := range []int{1, 8, 16, 32} {
		c, err := drive(ctx, o, load{targets: n, webhooks: 1, events: o.events / n, size: bodyBytes})
		if err := add(&targets, fmt.Sprint(n), c, err); err != nil {
			return nil, err
		}
	}
	for _, n := range []int{1, 10, 50, 100} {
		c, err := drive(ctx, o, load{targets: 1, webhooks: n, events: o.events, size: bodyBytes})
		if err := add(&webhooks, fmt.Sprint(n), c, err); err != nil {
			return nil, err
		}
	}
	for _, size := range []int{300, 600, 4_000, 16_000, 64_000} {
		c, err := drive(ctx, o, load{targets: 1, webhooks: 1, events: min(o.events, 200_000_000/size), size: size})
		if err := add(&sizes, fmt.Sprint(size), c, err); err != nil {
			return nil, err
		}
	}
	for _, events := range []int{10_000, 100_000, o.backlog / 2, o.backlog} {
		c, err := drain(ctx, o, events)
		if err := add(&backlogs, fmt.Sprint(events), c, err); err != nil {
			return nil, err
		}
	}
	return []Series{targets, webhooks, sizes, backlogs}, nil
}

// load is what a receiver has to do.
type load struct{ targets, webhooks, events, size int }

// drive has a receiver do it as fast as it goes.
func drive(ctx context.Context, o options, l load) (result cost, err error) {
	folder, release, err := ownFolder(o.folder, "growth")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, release()) }()
	target, err := startTarget(l.targets, l.events)
	if err != nil {
		return result, err
	}
	defer target.stop()
	s := setup{webhooks: l.webhooks}
	for i := range l.targets {
		s.targets = append(s.targets, target.address(i))
	}
	url, all, err := startPbxhook(ctx, o.programs.receiver, folder, s)
	defer func() { all.stop() }()
	if err != nil {
		return result, err
	}
	var to []string
	for i := range l.webhooks {
		to = append(to, strings.TrimSuffix(url, webhookName(0))+webhookName(i))
	}
	c, err := newClient(to, l.events, l.size)
	if err != nil {
		return result, err
	}
	result, err = fullSpeed(ctx, c, target, all, l.events)
	if got := int(target.count.Load()); err == nil && got != l.events*l.targets {
		return result, fmt.Errorf("expected %d deliveries, got %d", l.events*l.targets, got)
	}
	return result, err
}

// drain has a receiver deliver what is in its journal when it starts.
func drain(ctx context.Context, o options, events int) (result cost, err error) {
	folder, release, err := ownFolder(o.folder, "backlog")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := fill(ctx, folder, events); err != nil {
		return result, err
	}
	target, err := startTarget(1, events)
	if err != nil {
		return result, err
	}
	defer target.stop()
	_, all, err := startPbxhook(ctx, o.programs.receiver, folder, setup{targets: []string{target.address(0)}})
	defer func() { all.stop() }()
	if err != nil {
		return result, err
	}
	for target.count.Load() == 0 && ctx.Err() == nil { // a start looks at the whole file: that is not draining
		time.Sleep(time.Millisecond)
	}
	before, begin, already := all.cpu(), time.Since(target.start), target.count.Load()
	target.wait(ctx, events)
	got := target.count.Load()
	if int(got) != events {
		return result, fmt.Errorf("expected %d deliveries, got %d", events, got)
	}
	return cost{
		deliveredPerSecond: float64(got-already) / (target.last() - begin).Seconds(),
		cpuMicros:          float64((all.cpu() - before).Microseconds()) / float64(got-already),
		mib:                all.mib("VmHWM"),
	}, nil
}

// fillers is how many events are on their way into a journal at once.
const fillers = 1024

// fill makes the journal of a webhook whose target has none of its events.
func fill(ctx context.Context, folder string, events int) (err error) {
	j, err := journal.Open(ctx, filepath.Join(dataDir(folder), "default", webhookName(0), "journal.db"), journal.Options{MaxBytes: 8 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if _, err := j.OpenCursor(targetName(0)); err != nil {
		return err
	}
	var next atomic.Int64
	errs := make([]error, fillers)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for n := int(next.Add(1)) - 1; n < events && errs[i] == nil; n = int(next.Add(1)) - 1 {
				_, errs[i] = j.Append(ctx, journal.Record{
					ID: fmt.Sprint(n), Type: event.CallEnded, Lane: fmt.Sprintf("%d.1", n/5),
					Request: event.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body(n, bodyBytes)), ReceivedAt: time.Now()},
				}, nil)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
