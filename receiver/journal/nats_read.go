package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	batchBytes  = 4 << 20
	backBatch   = 500 // events that are read at once when looking back
	maxReadTime = 10 * time.Second
)

// message is one of a stream, by its sequence number.
type message struct {
	seq     uint64
	subject string
	data    []byte
}

// batch reads messages of a subject, from a sequence number on: at most limit, in order. left is how many there
// are after them. (JetStream: batched direct get, from 2.11 on.) A server that lags behind gives fewer, never
// others.
func (n *NATS) batch(ctx context.Context, stream, subject string, from uint64, limit int) (all []message, left int64, err error) {
	request, err := json.Marshal(map[string]any{"seq": max(from, 1), "next_by_subj": subject, "batch": limit, "max_bytes": batchBytes})
	if err != nil {
		return nil, 0, fmt.Errorf("ask for messages: %w", err)
	}
	inbox := n.conn.NewInbox()
	answers, err := n.conn.SubscribeSync(inbox)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, plainNATS(err))
	}
	defer func() { _ = answers.Unsubscribe() }() // it ends with the connection otherwise
	if err := n.conn.PublishRequest(n.api+".DIRECT.GET."+stream, inbox, request); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, plainNATS(err))
	}
	ctx, cancel := context.WithTimeout(ctx, maxReadTime)
	defer cancel()
	for {
		answer, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: read the stream %s: %w", ErrUnavailable, stream, plainNATS(err))
		}
		switch status := answer.Header.Get("Status"); status {
		case "":
		case "204":
			return all, number(answer, "Nats-Num-Pending"), nil
		case "404":
			return all, 0, nil
		default:
			return nil, 0, fmt.Errorf("%w: read the stream %s: %s %s", ErrUnavailable, stream, status, answer.Header.Get("Description"))
		}
		all = append(all, message{seq: uint64(number(answer, jetstream.SequenceHeader)), subject: answer.Header.Get("Nats-Subject"), data: answer.Data})
	}
}

func number(msg *nats.Msg, header string) int64 {
	value, _ := strconv.ParseInt(msg.Header.Get(header), 10, 64) // 0 where there is none
	return value
}

// record is the event of a message.
func (n *NATS) record(m message) (Record, error) {
	r, err := decode(0, m.data)
	if err != nil {
		return r, &DamagedError{File: n.name(), Seq: m.seq, Err: err}
	}
	r.Seq = m.seq
	return r, nil
}

// Get implements Journal.
func (n *NATS) Get(seq uint64) (Record, error) {
	ctx, cancel := context.WithTimeout(n.ctx, natsTimeout)
	defer cancel()
	return n.get(ctx, seq)
}

func (n *NATS) get(ctx context.Context, seq uint64) (Record, error) {
	if r := n.cache.get(seq); r != nil {
		return *r, nil
	}
	if _, err := n.bucket(); err != nil {
		return Record{}, err
	}
	msg, err := n.stream.GetMsg(ctx, seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return Record{}, ErrNotFound
	case err != nil:
		return Record{}, fmt.Errorf("%w: read event %d: %w", ErrUnavailable, seq, plainJetStream(err))
	}
	return n.record(message{seq: seq, data: msg.Data})
}

// Heads implements Journal.
func (n *NATS) Heads(after uint64, limit int) ([]Head, error) {
	all, err := n.events(after+1, limit)
	heads := make([]Head, 0, len(all))
	for _, m := range all {
		heads = append(heads, headOf(m.seq, m.data))
	}
	return heads, err
}

// events are kept events of all partitions.
func (n *NATS) events(from uint64, limit int) ([]message, error) {
	if _, err := n.bucket(); err != nil {
		return nil, err
	}
	all, _, err := n.batch(n.ctx, n.name(), n.subject("p.*"), from, limit)
	return all, err
}

// Back implements Journal.
func (n *NATS) Back(before uint64, look func(s Stored) (more bool)) error {
	last := n.State().LastSeq
	if before == 0 || before > last+1 {
		before = last + 1
	}
	for before > 1 {
		from := max(before, backBatch+1) - backBatch
		all, err := n.events(from, backBatch)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(all) {
			if m.seq < before && !look(Stored{Head: headOf(m.seq, m.data), Data: m.data, shared: true}) {
				return nil
			}
		}
		if before = from; len(all) == 0 && !n.any(before) {
			return nil
		}
	}
	return nil
}

// any is whether there are events before a sequence number.
func (n *NATS) any(before uint64) bool {
	first, err := n.events(1, 1)
	return err == nil && len(first) > 0 && first[0].seq < before
}

// Attempts implements Journal.
func (n *NATS) Attempts(seq uint64) ([]Attempt, error) {
	if _, err := n.bucket(); err != nil {
		return nil, err
	}
	lines, _, err := n.batch(n.ctx, n.name()+"_log", n.subject("log."+strconv.FormatUint(seq, 10)), 1, maxAttempts)
	if err != nil {
		return nil, err
	}
	var attempts []Attempt
	for _, line := range lines {
		if a, err := decodeAttempt(lineKey(seq, 0), line.data); err == nil {
			attempts = append(attempts, a)
		}
	}
	return attempts, nil
}

const maxAttempts = 1000 // of an event, that are shown

// Latest implements Journal.
func (n *NATS) Latest(logged int64) (attempts []Attempt, now int64) {
	if _, err := n.bucket(); err != nil {
		return nil, logged
	}
	last := int64(0)
	lines, _, err := n.batch(n.ctx, n.name()+"_log", n.subject("log.*"), uint64(logged)+1, maxLatest)
	if err != nil {
		return nil, logged
	}
	for _, line := range lines {
		last = int64(line.seq)
		seq, err := strconv.ParseUint(line.subject[strings.LastIndexByte(line.subject, '.')+1:], 10, 64)
		if err != nil {
			continue // not ours
		}
		if a, err := decodeAttempt(lineKey(seq, 0), line.data); err == nil {
			a.Reply = ""
			attempts = append(attempts, a)
		}
	}
	return attempts, max(last, logged)
}

// DeadLetters implements Journal.
func (n *NATS) DeadLetters(target string, after uint64, limit int) ([]DeadLetter, error) {
	kv, err := n.bucket()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, maxReadTime)
	defer cancel()
	var letters []DeadLetter
	err = eachValue(ctx, kv, "dead."+target+".*", func(entry jetstream.KeyValueEntry) error {
		seq, err := seqOfKey(entry.Key())
		if err != nil || seq <= after {
			return nil
		}
		letter, err := decodeLetter(target, seq, entry.Value())
		if err != nil {
			return &DamagedError{File: n.name(), Seq: seq, Err: fmt.Errorf("read a dead letter: %w", err)}
		}
		letters = append(letters, letter)
		return nil
	})
	slices.SortFunc(letters, func(a, b DeadLetter) int { return int(a.Record.Seq) - int(b.Record.Seq) })
	return letters[:min(len(letters), limit)], err
}

// eachValue calls do for each value of a bucket whose key matches.
func eachValue(ctx context.Context, kv jetstream.KeyValue, keys string, do func(entry jetstream.KeyValueEntry) error) error {
	watcher, err := kv.Watch(ctx, keys, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, plainJetStream(err))
	}
	defer func() { _ = watcher.Stop() }() // it ends with the context otherwise
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil {
				return nil
			}
			if err := do(entry); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
}

func deadKey(target string, seq uint64) string { return fmt.Sprintf("dead.%s.%020d", target, seq) }

func seqOfKey(key string) (uint64, error) {
	return strconv.ParseUint(key[strings.LastIndexByte(key, '.')+1:], 10, 64)
}

// DropDeadLetters implements Journal.
func (n *NATS) DropDeadLetters(target string, seqs []uint64) error {
	kv, err := n.bucket()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(n.ctx, maxReadTime)
	defer cancel()
	for _, seq := range seqs {
		if err := kv.Purge(ctx, deadKey(target, seq)); err != nil {
			return fmt.Errorf("drop a dead letter of target %s: %w", target, plainJetStream(err))
		}
	}
	return nil
}

// DropNATS deletes all that a journal in NATS has: its events, cursors, dead letters and delivery log. What is not there
// is deleted already.
func DropNATS(ctx context.Context, o NATSOptions) error {
	n := &NATS{options: o}
	connect, err := n.connectOptions()
	if err != nil {
		return err
	}
	connect = append(connect, nats.RetryOnFailedConnect(false))
	if n.conn, err = nats.Connect(o.URL, connect...); err != nil {
		return fmt.Errorf("connect to NATS: %w", plainNATS(err))
	}
	defer n.conn.Close()
	js, err := jetstream.NewWithAPIPrefix(n.conn, apiOf(&o))
	if err != nil {
		return fmt.Errorf("use JetStream: %w", plainNATS(err))
	}
	for _, stream := range []string{n.name() + "_log", n.name(), "KV_" + n.name(), "KV_" + n.name() + "_leases"} {
		if err := js.DeleteStream(ctx, stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("delete the stream %s: %w", stream, plainJetStream(err))
		}
	}
	return nil
}
