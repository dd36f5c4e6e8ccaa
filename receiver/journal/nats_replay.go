package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Replay asks the owners of partitions, whichever receivers they are, to hand events to a target again, and returns
// when that is durable. parts are the events by partition; request has all else. Each partition gets its share of the
// rate.
func (n *NATS) Replay(ctx context.Context, request ReplayRequest, parts map[int]Ranges) error {
	total := int64(0)
	for _, seqs := range parts {
		total += seqs.Len()
	}
	for part, seqs := range parts {
		request.Seqs, request.Share = seqs, float64(seqs.Len())/float64(total)
		if err := n.request(ctx, part, request); err != nil {
			return err
		}
	}
	return nil
}

func replayKey(part int, request *ReplayRequest) string {
	return replayPrefix + strconv.Itoa(part) + "." + request.Target + "." + request.ID
}

// request stores a request for the owner of a partition, over an earlier one about the same replay, and tells the
// owner.
func (n *NATS) request(ctx context.Context, part int, request ReplayRequest) error {
	kv, err := n.bucket()
	if err != nil {
		return err
	}
	key := replayKey(part, &request)
	data, err := seal([]byte(key), request)
	if err != nil {
		return fmt.Errorf("write the replay request: %w", err)
	}
	if _, err := kv.Put(ctx, key, data); err != nil {
		return fmt.Errorf("write the replay request: %w", plainJetStream(err))
	}
	_ = n.conn().Publish(n.subject("wish."+strconv.Itoa(part)), nil) // an owner that does not hear it looks by itself
	return nil
}

// Replays returns the replays of all partitions by target, as far as the cursors were written, without their events:
// a replay is there once for each partition that it concerns, also where the owner has not taken it yet.
func (n *NATS) Replays(ctx context.Context) (map[string][]Replay, error) {
	all := map[string][]Replay{}
	err := n.eachReplay(ctx, func(_ int, target string, r Replay, _ *ReplayRequest) {
		r.Seqs = nil
		all[target] = append(all[target], r)
	})
	return all, err
}

// CancelReplay asks the owners of all partitions to cancel a replay, and reports whether it is running somewhere. The
// request is durable when it returns.
func (n *NATS) CancelReplay(ctx context.Context, id string) (found bool, err error) {
	type place struct {
		part    int
		request ReplayRequest
	}
	var places []place
	if err := n.eachReplay(ctx, func(part int, target string, r Replay, waiting *ReplayRequest) {
		if r.ID != id {
			return
		}
		found = true
		request := ReplayRequest{Target: target, ID: id}
		if waiting != nil {
			request = *waiting // so that the owner can say how many were not sent
		}
		if request.Cancel = true; r.Running() {
			places = append(places, place{part, request})
		}
	}); err != nil {
		return false, err
	}
	for _, p := range places {
		if err := n.request(ctx, p.part, p.request); err != nil {
			return true, err
		}
	}
	return found, nil
}

// eachReplay calls do for each replay of each cursor, and for each request that waits for an owner.
func (n *NATS) eachReplay(ctx context.Context, do func(part int, target string, r Replay, waiting *ReplayRequest)) error {
	requests := map[string]ReplayRequest{} // before the cursors: one that is taken meanwhile is in its cursor
	if _, err := n.bucket(); err != nil {
		return err
	}
	if err := n.eachValue(ctx, n.name(), replayPrefix+">", func(v value) error {
		var request ReplayRequest
		if err := unseal([]byte(v.key), v.data, &request); err != nil {
			return fmt.Errorf("read a replay request: %w", err)
		}
		requests[v.key] = request
		return nil
	}); err != nil {
		return err
	}
	type place struct {
		part   int
		target string
	}
	cursors := map[place]Cursor{} // one that is written meanwhile may be read twice
	if err := n.eachCursor(ctx, "cursor.>", func(part int, target string, f found) { cursors[place{part, target}] = f.Cursor }); err != nil {
		return err
	}
	for p, c := range cursors {
		for _, r := range c.Replays {
			delete(requests, replayKey(p.part, &ReplayRequest{Target: p.target, ID: r.ID}))
			if c.RemovedAt.IsZero() {
				do(p.part, p.target, r, nil)
			}
		}
	}
	for key, request := range requests {
		var part int
		if _, err := fmt.Sscanf(key, replayPrefix+"%d.", &part); err != nil || request.Cancel {
			continue
		}
		waiting := request.Replay()
		do(part, request.Target, waiting, &request)
	}
	return nil
}

// wishPoll is between two looks for requests that nobody told of.
const wishPoll = 5 * time.Second

// ReplayRequests hands the partition's requests to take, as they are made, until ctx ends. What take fails to take is
// handed to it again.
func (p *natsPart) ReplayRequests(ctx context.Context, take func(ReplayRequest) error) {
	for ctx.Err() == nil {
		pause := wishPoll
		if err := p.takeRequests(ctx, take); err != nil && ctx.Err() == nil {
			p.n.options.Log.Warn("replays cannot be taken now", "error", err)
			pause = natsRetry
		}
		select {
		case <-ctx.Done():
		case <-p.wished:
		case <-time.After(pause):
		}
	}
}

func (p *natsPart) takeRequests(ctx context.Context, take func(ReplayRequest) error) error {
	if _, err := p.n.bucket(); err != nil {
		return err
	}
	seen := map[string]bool{}
	var failed error // one that cannot be taken does not hold up another one
	err := p.n.eachValue(ctx, p.n.name(), replayPrefix+strconv.Itoa(p.index)+".>", func(v value) error {
		var request ReplayRequest
		if err := unseal([]byte(v.key), v.data, &request); err != nil {
			return fmt.Errorf("read a replay request: %w", err)
		}
		if seen[v.key] = true; p.taken[v.key] < v.revision { // else a server that lags behind has it still
			if err := take(request); err != nil {
				failed = errors.Join(failed, fmt.Errorf("replay %s to target %s: %w", request.ID, request.Target, err))
				return nil
			}
			p.taken[v.key] = v.revision
		}
		return p.n.eraseUpTo(ctx, p.n.name(), v.key, v.revision) // not what has been asked since, such as to cancel it
	})
	maps.DeleteFunc(p.taken, func(key string, _ uint64) bool { return err == nil && !seen[key] })
	return errors.Join(err, failed)
}

// hearWish takes in that there is a replay request.
func (n *NATS) hearWish(msg *nats.Msg) {
	part, err := partOf(msg)
	if err != nil {
		return // not ours
	}
	n.mu.Lock()
	p := n.parts[part]
	n.mu.Unlock()
	if p == nil {
		return
	}
	select {
	case p.wished <- struct{}{}:
	default: // it is woken already
	}
}
