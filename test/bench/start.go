package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Small is how small and how quick a receiver is.
type Small struct {
	FirstAcceptedMs float64 `json:"firstAcceptedMs"` // from the start of the process to the first 202
	IdleRSSMiB      float64 `json:"idleRSSMiB"`
	ReceiverMiB     float64 `json:"receiverMiB"` // the program
	// What the disk takes to keep 16 KiB: a commit waits for it twice.
	DiskP50Ms float64 `json:"diskP50Ms"`
	DiskP99Ms float64 `json:"diskP99Ms"`
}

const (
	starts  = 5
	settles = 3 * time.Second // after which a receiver without work is idle
)

// small starts a receiver several times, and lets one idle.
func small(ctx context.Context, o options) (Small, error) {
	var firsts, idle []float64
	for range starts {
		first, rss, err := startOnce(ctx, o, len(idle) == 0)
		if err != nil {
			return Small{}, err
		}
		firsts = append(firsts, first)
		if rss > 0 {
			idle = append(idle, rss)
		}
	}
	info, err := os.Stat(o.programs.receiver)
	if err != nil {
		return Small{}, fmt.Errorf("look at the receiver: %w", err)
	}
	result := Small{FirstAcceptedMs: middle(firsts), IdleRSSMiB: middle(idle), ReceiverMiB: middle([]float64{float64(info.Size()) / (1 << 20)})}
	result.DiskP50Ms, result.DiskP99Ms, err = disk(o.folder)
	return result, err
}

// disk measures how long the disk takes to keep something.
func disk(folder string) (p50, p99 float64, err error) {
	const writes, size = 2000, 16 << 10
	file, err := os.CreateTemp(folder, "bench-disk-")
	if err != nil {
		return 0, 0, fmt.Errorf("make a file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	took := make([]time.Duration, writes)
	for i := range took {
		begin := time.Now()
		if _, err := file.WriteAt(make([]byte, size), int64(i)*size); err != nil {
			return 0, 0, fmt.Errorf("write a file: %w", err)
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return 0, 0, fmt.Errorf("keep a file: %w", err)
		}
		took[i] = time.Since(begin)
	}
	return ms(percentile(took, 50)), ms(percentile(took, 99)), nil
}

func startOnce(ctx context.Context, o options, idle bool) (firstMs, rss float64, err error) {
	folder, release, err := ownFolder(o.folder, "start")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	target, err := startTarget(1, 1)
	if err != nil {
		return 0, 0, err
	}
	defer target.stop()
	begin := time.Now()
	url, all, err := startPbxhook(ctx, o.programs.receiver, folder, setup{targets: []string{target.address(0)}})
	defer func() { all.stop() }()
	if err != nil {
		return 0, 0, err
	}
	if idle {
		time.Sleep(settles)
		rss = all.mib("VmRSS")
		begin = begin.Add(settles)
	}
	c, err := newClient([]string{url}, 1, bodyBytes)
	if err != nil {
		return 0, 0, err
	}
	if err := c.send(ctx, target.start, 0, 1, 0); err != nil {
		return 0, 0, err
	}
	if c.accepted(0, 1) != 1 {
		return 0, 0, errors.New("the first event was not accepted")
	}
	return ms(time.Since(begin)), rss, nil
}
