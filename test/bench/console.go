package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/test/loopback"
)

// Console is what the console and the delivery log cost: with both, and somebody who looks, of the same without
// them, divided within each round.
type Console struct {
	OfPlainAccepted  float64 `json:"ofPlainAccepted"`
	OfPlainDelivered float64 `json:"ofPlainDelivered"`
	Pages            int     `json:"pages"` // that were looked at
}

// consoleCost compares the receiver with its console and delivery log to the same without.
func consoleCost(ctx context.Context, o options) (Console, error) {
	var accepted, delivered []float64
	pages := 0
	for round := range 2*o.rounds - 1 {
		with, seen, err := withConsole(ctx, o)
		if err != nil {
			return Console{}, err
		}
		plain, err := measure(ctx, system{"plain", func(ctx context.Context, folder, target string) (string, processes, error) {
			return startPbxhook(ctx, o.programs.receiver, folder, setup{targets: []string{target}, unlogged: true})
		}}, o)
		if err != nil {
			return Console{}, err
		}
		fmt.Printf("round %d: with console and log %6.0f accepted/s, %6.0f delivered/s; without %6.0f, %6.0f\n", round+1, with.AcceptedPerSecond, with.DeliveredPerSecond, plain.AcceptedPerSecond, plain.DeliveredPerSecond)
		accepted, delivered = append(accepted, with.AcceptedPerSecond/plain.AcceptedPerSecond), append(delivered, with.DeliveredPerSecond/plain.DeliveredPerSecond)
		pages += seen
	}
	return Console{OfPlainAccepted: middle(accepted), OfPlainDelivered: middle(delivered), Pages: pages}, nil
}

func withConsole(ctx context.Context, o options) (row Row, pages int, err error) {
	console, err := loopback.Find()
	if err != nil {
		return row, 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	seen := make(chan int, 1)
	row, err = measure(ctx, system{"with console", func(ctx context.Context, folder, target string) (string, processes, error) {
		url, all, err := startPbxhook(ctx, o.programs.receiver, folder, setup{targets: []string{target}, console: console})
		if err == nil {
			go func() { seen <- look(ctx, console) }()
		}
		return url, all, err
	}}, o)
	stop()
	if err != nil {
		return row, 0, err
	}
	return row, <-seen, nil
}

// look does what a browser does with the console's first page: it fetches it anew when something has happened, at
// most once a second.
func look(ctx context.Context, console string) (pages int) {
	events, err := fetch(ctx, "http://"+console+"/live")
	if err != nil {
		return 0
	}
	defer func() { _ = events.Close() }() // it was only read
	last := time.Time{}
	for lines := bufio.NewScanner(events); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "event: change") || time.Since(last) < time.Second {
			continue
		}
		page, err := fetch(ctx, "http://"+console+"/")
		if err != nil {
			return pages
		}
		_, err = io.Copy(io.Discard, page)
		if err = errors.Join(err, page.Close()); err != nil {
			return pages
		}
		pages++
		last = time.Now()
	}
	return pages
}

func fetch(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the console: %w", err)
	}
	return response.Body, nil
}
