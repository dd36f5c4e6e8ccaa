package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/test/bench/proc"
	"github.com/pbxhook/pbxhook/test/loopback"
)

// Shared is what several receivers do with one journal in NATS, as ratios to one of them, divided within each round.
type Shared struct {
	Receivers   int     `json:"receivers"`
	Processors  int     `json:"processors"` // that each may use; 0: all
	OfOne       float64 `json:"ofOneDelivered"`
	OfEmbedded  float64 `json:"ofEmbeddedDelivered"`
	CPUPerEvent float64 `json:"cpuMicrosPerEvent"` // of the receivers, without NATS
}

const mostReceivers = 3

// sharedCost compares one, two and three receivers on one NATS server, and one with an embedded journal: receivers
// that have one processor each, as pods have their share, and such that may use all.
func sharedCost(ctx context.Context, o options) ([]Shared, error) {
	var all []Shared
	for _, processors := range []int{1, 0} {
		for i := range mostReceivers {
			all = append(all, Shared{Receivers: i + 1, Processors: processors})
		}
	}
	ofOne, ofEmbedded, cpu := make([][]float64, len(all)), make([][]float64, len(all)), make([][]float64, len(all))
	for round := range o.rounds {
		embedded, err := drive(ctx, o, load{targets: 1, webhooks: 1, events: o.events, size: bodyBytes})
		if err != nil {
			return nil, err
		}
		one := 0.0
		for i, s := range all {
			c, err := driveShared(ctx, o, s.Receivers, s.Processors)
			if err != nil {
				return nil, err
			}
			if s.Receivers == 1 {
				one = c.deliveredPerSecond
			}
			fmt.Printf("round %d: %d receivers on NATS, %s, %6.0f delivered/s, %4.0f µs CPU an event; embedded %6.0f\n",
				round+1, s.Receivers, s.Each(), c.deliveredPerSecond, c.cpuMicros, embedded.deliveredPerSecond)
			ofOne[i], ofEmbedded[i] = append(ofOne[i], c.deliveredPerSecond/one), append(ofEmbedded[i], c.deliveredPerSecond/embedded.deliveredPerSecond)
			cpu[i] = append(cpu[i], c.cpuMicros)
		}
	}
	for i := range all {
		all[i].OfOne, all[i].OfEmbedded, all[i].CPUPerEvent = middle(ofOne[i]), middle(ofEmbedded[i]), middle(cpu[i])
	}
	return all, nil
}

// Each says what processors a receiver may use.
func (s Shared) Each() string {
	if s.Processors == 0 {
		return "all"
	}
	return fmt.Sprint(s.Processors, " each")
}

// driveShared has several receivers that share a journal do their work as fast as it goes.
func driveShared(ctx context.Context, o options, receivers, processors int) (result cost, err error) {
	folder, release, err := ownFolder(o.folder, "shared")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, release()) }()
	broker, err := loopback.Find()
	if err != nil {
		return result, err
	}
	host, port, _ := strings.Cut(broker, ":")
	server, err := proc.Start(ctx, filepath.Join(folder, "nats.log"), o.programs.nats, "-a", host, "-p", port, "-js", "-sd", filepath.Join(folder, "js"))
	if err != nil {
		return result, err
	}
	defer server.Stop()
	if err := listening(ctx, broker, server); err != nil {
		return result, err
	}
	target, err := startTarget(1, o.events)
	if err != nil {
		return result, err
	}
	defer target.stop()
	var all processes
	defer func() { all.stop() }()
	var urls []string
	for i := range receivers {
		own := filepath.Join(folder, fmt.Sprint(i))
		if err := os.Mkdir(own, 0o700); err != nil {
			return result, fmt.Errorf("make a folder: %w", err)
		}
		url, started, err := startPbxhook(ctx, o.programs.receiver, own, setup{targets: []string{target.address(0)}, nats: "nats://" + broker, processors: processors})
		all = append(all, started...)
		if err != nil {
			return result, err
		}
		urls = append(urls, url)
	}
	if err := taking(ctx, urls); err != nil {
		return result, err
	}
	c, err := newClient(urls[:1], o.events, bodyBytes)
	if err != nil {
		return result, err
	}
	for _, url := range urls[1:] {
		_, rest, _ := strings.Cut(url, "@")
		address, _, _ := strings.Cut(rest, "/")
		c.others = append(c.others, address)
	}
	time.Sleep(settles) // partitions are shared out
	result, err = fullSpeed(ctx, c, target, all, o.events)
	if got := int(target.count.Load()); err == nil && got < o.events {
		return result, fmt.Errorf("expected %d deliveries, got %d", o.events, got)
	}
	return result, err
}

// taking waits until each receiver takes events: a filter of the benchmark's keeps these from the target.
func taking(ctx context.Context, urls []string) error {
	for _, url := range urls {
		for {
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"event_name":"Ping"}`))
			if err != nil {
				return fmt.Errorf("make a request: %w", err)
			}
			response, err := http.DefaultClient.Do(request)
			if err == nil {
				_ = response.Body.Close()
				if response.StatusCode == http.StatusAccepted {
					break
				}
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}
