package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// letterBucket has the dead letters alone, so that its length is their number: what is dropped leaves no mark there.
func (n *NATS) letterBucket() string { return n.name() + "_dead" }

func letterName(target string, seq uint64) string { return fmt.Sprintf("%s.%020d", target, seq) }

func seqOfKey(key string) (uint64, error) {
	return strconv.ParseUint(key[strings.LastIndexByte(key, '.')+1:], 10, 64)
}

// bury keeps dead letters.
func (n *NATS) bury(ctx context.Context, target string, dead []DeadLetter) error {
	if _, err := n.bucket(); err != nil {
		return err
	}
	for i := range dead {
		data, err := encodeLetter(target, &dead[i])
		if err == nil {
			_, err = n.letters.Put(ctx, letterName(target, dead[i].Record.Seq), data)
		}
		if err != nil {
			return fmt.Errorf("keep a dead letter of target %s: %w", target, plainJetStream(err))
		}
	}
	return nil
}

// DeadLetters implements Journal.
func (n *NATS) DeadLetters(target string, after uint64, limit int) ([]DeadLetter, error) {
	if _, err := n.bucket(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, maxReadTime)
	defer cancel()
	if limit == 1 { // mostly it is one that is known by its number
		entry, err := n.letters.Get(ctx, letterName(target, after+1))
		if err == nil {
			letter, err := n.letter(target, after+1, entry.Value())
			return []DeadLetter{letter}, err
		}
		if !errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil, fmt.Errorf("%w: read a dead letter: %w", ErrUnavailable, plainJetStream(err))
		}
	}
	var letters []DeadLetter
	err := n.eachValue(ctx, n.letterBucket(), target+".*", func(v value) error {
		seq, err := seqOfKey(v.key)
		if err != nil || seq <= after {
			return nil
		}
		letter, err := n.letter(target, seq, v.data)
		letters = append(letters, letter)
		return err
	})
	slices.SortFunc(letters, func(a, b DeadLetter) int { return int(a.Record.Seq) - int(b.Record.Seq) })
	return letters[:min(len(letters), limit)], err
}

func (n *NATS) letter(target string, seq uint64, data []byte) (DeadLetter, error) {
	letter, err := decodeLetter(target, seq, data)
	if err != nil {
		return letter, &DamagedError{File: n.name(), Seq: seq, Err: fmt.Errorf("read a dead letter: %w", err)}
	}
	return letter, nil
}

// DropDeadLetters implements Journal.
func (n *NATS) DropDeadLetters(target string, seqs []uint64) error {
	if _, err := n.bucket(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(n.ctx, maxReadTime)
	defer cancel()
	for _, seq := range seqs {
		if err := n.erase(ctx, n.letterBucket(), letterName(target, seq)); err != nil {
			return fmt.Errorf("drop a dead letter of target %s: %w", target, err)
		}
	}
	return nil
}

// exhume drops the oldest dead letters of targets that have more than are kept. Those that are too old go by
// themselves.
func (n *NATS) exhume(ctx context.Context) error {
	if n.State().DeadLetters <= maxDeadLetters {
		return nil
	}
	byTarget := map[string][]uint64{}
	if err := n.eachValue(ctx, n.letterBucket(), ">", func(v value) error {
		if seq, err := seqOfKey(v.key); err == nil {
			target, _, _ := strings.Cut(v.key, ".")
			byTarget[target] = append(byTarget[target], seq)
		}
		return nil
	}); err != nil {
		return err
	}
	for target, seqs := range byTarget {
		slices.Sort(seqs)
		excess := max(0, len(seqs)-maxDeadLetters)
		if err := n.DropDeadLetters(target, seqs[:excess]); err != nil {
			return err
		}
		n.mu.Lock()
		if n.evicted == nil {
			n.evicted = map[string]int64{}
		}
		n.evicted[target] += int64(excess)
		n.mu.Unlock()
	}
	return nil
}
