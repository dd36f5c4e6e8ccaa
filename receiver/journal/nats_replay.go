package journal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Wish is a replay that waits for the owner of a partition.
type Wish struct {
	Target string
	ID     string
	Seqs   Ranges
}

// Replay asks the owners of partitions, whichever receivers they are, to hand events to a target again, and
// returns how many these are.
func (n *NATS) Replay(ctx context.Context, w Wish) (int64, error) {
	kv, err := n.bucket()
	if err != nil {
		return 0, err
	}
	parts, taken := map[int]Ranges{}, int64(0)
	for seq := range w.Seqs.All() {
		r, err := n.replayed(ctx, w.Target, seq)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		ranges := parts[partitionOf(&r)]
		ranges.Add(seq)
		parts[partitionOf(&r)] = ranges
		taken++
	}
	for part, seqs := range parts {
		key := replayPrefix + strconv.Itoa(part) + "." + w.Target + "." + w.ID
		data, err := seal([]byte(key), Wish{Target: w.Target, ID: w.ID, Seqs: seqs})
		if err != nil {
			return 0, fmt.Errorf("write the replay: %w", err)
		}
		if _, err := kv.Put(ctx, key, data); err != nil {
			return 0, fmt.Errorf("write the replay: %w", plainJetStream(err))
		}
		_ = n.conn.Publish(n.subject("wish."+strconv.Itoa(part)), nil) // who does not hear it looks by itself
	}
	return taken, nil
}

// replayed is an event that is to go out again; it may be left as a dead letter alone.
func (n *NATS) replayed(ctx context.Context, target string, seq uint64) (Record, error) {
	r, err := n.get(ctx, seq)
	if !errors.Is(err, ErrNotFound) {
		return r, err
	}
	letters, err := n.DeadLetters(target, seq-1, 1)
	if err != nil || len(letters) == 0 || letters[0].Record.Seq != seq {
		return Record{}, errors.Join(err, ErrNotFound)
	}
	return letters[0].Record, nil
}

// wishPoll is between two looks for replays that nobody told of.
const wishPoll = 5 * time.Second

// Wishes hands the partition's replays to take, as they are asked for, until ctx ends. What take refuses with an
// error is handed to it again.
func (p *natsPart) Wishes(ctx context.Context, take func(Wish) error) {
	for ctx.Err() == nil {
		pause := wishPoll
		if err := p.takeWishes(ctx, take); err != nil && ctx.Err() == nil {
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

func (p *natsPart) takeWishes(ctx context.Context, take func(Wish) error) error {
	if _, err := p.n.bucket(); err != nil {
		return err
	}
	return p.n.eachValue(ctx, p.n.name(), replayPrefix+strconv.Itoa(p.index)+".>", func(v value) error {
		var w Wish
		if err := unseal([]byte(v.key), v.data, &w); err != nil {
			return fmt.Errorf("read a replay: %w", err)
		}
		if v.revision > p.taken { // else a server that lags behind has it still
			if err := take(w); err != nil {
				return err
			}
			p.taken = v.revision
		}
		return p.n.erase(ctx, p.n.name(), v.key)
	})
}

// hearWish takes in that a replay was asked for.
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
