package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Row is what a run found out about one system: medians of the rounds. Ratios were divided within each round.
type Row struct {
	System             string  `json:"system"`
	AcceptedPerSecond  float64 `json:"acceptedPerSecond"`
	DeliveredPerSecond float64 `json:"deliveredPerSecond"`
	OfRigAccepted      float64 `json:"ofRigAccepted"`
	OfRigDelivered     float64 `json:"ofRigDelivered"`
	OfNginxAccepted    float64 `json:"ofNginxAccepted"`
	OfNginxDelivered   float64 `json:"ofNginxDelivered"`
	OfBentoAccepted    float64 `json:"ofBentoAccepted"`
	OfBentoDelivered   float64 `json:"ofBentoDelivered"`
	// the same beside bento with NATS that writes each message to the disk before it acknowledges it
	OfBentoSyncAccepted  float64 `json:"ofBentoSyncAccepted"`
	OfBentoSyncDelivered float64 `json:"ofBentoSyncDelivered"`
	AcceptP50Ms          float64 `json:"acceptP50Ms"`
	AcceptP99Ms          float64 `json:"acceptP99Ms"`
	EndToEndP50Ms        float64 `json:"endToEndP50Ms"`
	EndToEndP99Ms        float64 `json:"endToEndP99Ms"`
	OfNginxP99           float64 `json:"ofNginxEndToEndP99"`
	CPUMicrosPerEvent    float64 `json:"cpuMicrosPerEvent"`
	RSSMiB               float64 `json:"rssMiB"`
	Lost                 int     `json:"lost"`
	Repeated             int     `json:"repeated"`
}

// fixedRate is how many events a second are offered for latencies, evenly spread.
const fixedRate = 1000

// compare has all systems do the same work in turns.
func compare(ctx context.Context, all []system, o options) ([]Row, error) {
	byRound := make([]map[string]Row, o.rounds)
	for round := range byRound {
		byRound[round] = map[string]Row{}
		for _, s := range all {
			row, err := measure(ctx, s, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Printf("round %d: %-12s %6.0f accepted/s, %6.0f delivered/s, %4.0f µs CPU an event, end to end %.2f, %.2f ms\n",
				round+1, s.name, row.AcceptedPerSecond, row.DeliveredPerSecond, row.CPUMicrosPerEvent, row.EndToEndP50Ms, row.EndToEndP99Ms)
			byRound[round][s.name] = row
		}
	}
	var rows []Row
	for _, s := range all {
		rows = append(rows, median(s.name, byRound))
	}
	return rows, nil
}

// ownFolder makes a folder that goes when it is released.
func ownFolder(in, name string) (folder string, release func() error, err error) {
	folder, err = os.MkdirTemp(in, "bench-"+name+"-")
	if err == nil {
		folder, err = filepath.Abs(folder)
	}
	if err != nil {
		return "", nil, fmt.Errorf("make a folder: %w", err)
	}
	return folder, func() error { return os.RemoveAll(folder) }, nil
}

// measure has one system do its work once: as fast as it goes, and then at a rate, for latencies.
func measure(ctx context.Context, s system, o options) (row Row, err error) {
	folder, release, err := ownFolder(o.folder, "compare")
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, release()) }()
	total := o.events + fixedRate*o.seconds
	target, err := startTarget(1, total)
	if err != nil {
		return row, err
	}
	defer target.stop()
	url, all, err := s.start(ctx, folder, target.address(0))
	defer func() { all.stop() }()
	if err != nil {
		return row, err
	}
	c, err := newClient([]string{url}, total, bodyBytes)
	if err != nil {
		return row, err
	}
	row.System = s.name
	cost, err := fullSpeed(ctx, c, target, all, o.events)
	if err != nil {
		return row, err
	}
	row.AcceptedPerSecond, row.DeliveredPerSecond = cost.acceptedPerSecond, cost.deliveredPerSecond
	row.CPUMicrosPerEvent, row.RSSMiB = cost.cpuMicros, cost.mib
	if err := c.send(ctx, target.start, o.events, total, fixedRate); err != nil {
		return row, err
	}
	target.wait(ctx, total)
	latencies(c, target, &row, o.events, total)
	for n := range total {
		if c.answered[n] != 0 && target.arrived[n].Load() == 0 {
			row.Lost++
		}
	}
	row.Repeated = int(target.again.Load())
	return row, nil
}

// cost is what a number of events took.
type cost struct {
	acceptedPerSecond, deliveredPerSecond float64
	cpuMicros                             float64 // an event
	mib                                   float64 // at most
}

// fullSpeed sends the first events as fast as they are accepted, and waits until all targets have them.
func fullSpeed(ctx context.Context, c *client, target *target, all processes, events int) (cost, error) {
	before := all.cpu()
	begin := time.Since(target.start)
	if err := c.send(ctx, target.start, 0, events, 0); err != nil {
		return cost{}, err
	}
	accepted := c.accepted(0, events)
	took := time.Since(target.start) - begin
	deliveries := accepted * len(target.arrived) / target.events
	target.wait(ctx, deliveries)
	return cost{
		acceptedPerSecond:  float64(accepted) / took.Seconds(),
		deliveredPerSecond: float64(target.count.Load()) / (target.last() - begin).Seconds(),
		cpuMicros:          float64((all.cpu() - before).Microseconds()) / float64(events),
		mib:                all.mib("VmHWM"),
	}, nil
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
	row.AcceptP50Ms, row.AcceptP99Ms = ms(percentile(accept, 50)), ms(percentile(accept, 99))
	row.EndToEndP50Ms, row.EndToEndP99Ms = ms(percentile(arrive, 50)), ms(percentile(arrive, 99))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// median makes one row of a system's rounds.
func median(name string, rounds []map[string]Row) Row {
	of := func(value func(r Row) float64) float64 {
		var values []float64
		for _, round := range rounds {
			values = append(values, value(round[name]))
		}
		return middle(values)
	}
	ratio := func(other string, value func(r Row) float64) float64 {
		var values []float64
		for _, round := range rounds {
			if divisor, ok := round[other]; ok && value(divisor) > 0 {
				values = append(values, value(round[name])/value(divisor))
			}
		}
		return middle(values)
	}
	accepted := func(r Row) float64 { return r.AcceptedPerSecond }
	delivered := func(r Row) float64 { return r.DeliveredPerSecond }
	p99 := func(r Row) float64 { return r.EndToEndP99Ms }
	row := Row{
		System:            name,
		AcceptedPerSecond: of(accepted), DeliveredPerSecond: of(delivered),
		OfRigAccepted: ratio(rigAlone, accepted), OfRigDelivered: ratio(rigAlone, delivered),
		OfNginxAccepted: ratio(nginxProxy, accepted), OfNginxDelivered: ratio(nginxProxy, delivered),
		OfBentoAccepted: ratio(bentoNATS, accepted), OfBentoDelivered: ratio(bentoNATS, delivered),
		OfBentoSyncAccepted: ratio(bentoNATSSync, accepted), OfBentoSyncDelivered: ratio(bentoNATSSync, delivered),
		AcceptP50Ms: of(func(r Row) float64 { return r.AcceptP50Ms }), AcceptP99Ms: of(func(r Row) float64 { return r.AcceptP99Ms }),
		EndToEndP50Ms: of(func(r Row) float64 { return r.EndToEndP50Ms }), EndToEndP99Ms: of(p99),
		OfNginxP99:        ratio(nginxProxy, p99),
		CPUMicrosPerEvent: of(func(r Row) float64 { return r.CPUMicrosPerEvent }),
		RSSMiB:            of(func(r Row) float64 { return r.RSSMiB }),
	}
	for _, round := range rounds { // none may be lost in any
		row.Lost += round[name].Lost
		row.Repeated += round[name].Repeated
	}
	return row
}

// middle is the median, to two digits after the point; 0 of none.
func middle(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return math.Round(values[len(values)/2]*100) / 100
}
