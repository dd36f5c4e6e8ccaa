package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
	stored  string // when, as the servers write it
	subject string
	data    []byte
	erased  bool // it is a bucket's mark that a value was deleted
}

// time returns when the servers stored it; zero where they do not say.
func (m *message) time() time.Time {
	stored, err := time.Parse(time.RFC3339Nano, m.stored)
	if err != nil {
		return time.Time{}
	}
	return stored
}

// batch reads messages of a subject, from a sequence number on: at most limit, in order. left is how many there
// are after them. (JetStream: batched direct get, from 2.11 on.) A server that lags behind gives fewer, never
// others.
func (n *NATS) batch(ctx context.Context, stream, subject string, from uint64, limit int) (all []message, left int64, err error) {
	request, err := json.Marshal(map[string]any{"seq": max(from, 1), "next_by_subj": subject, "batch": limit, "max_bytes": batchBytes})
	if err != nil {
		return nil, 0, fmt.Errorf("ask for messages: %w", err)
	}
	inbox := n.conn().NewInbox()
	answers, err := n.conn().SubscribeSync(inbox)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, plainNATS(err))
	}
	defer func() { _ = answers.Unsubscribe() }() // it ends with the connection otherwise
	if err := n.conn().PublishRequest(n.api+".DIRECT.GET."+stream, inbox, request); err != nil {
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
		all = append(all, message{
			seq: uint64(number(answer, jetstream.SequenceHeader)), stored: answer.Header.Get(jetstream.TimeStampHeaer), subject: answer.Header.Get("Nats-Subject"), data: answer.Data,
			erased: answer.Header.Get("KV-Operation") != "",
		})
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
	n.mu.Lock()
	cached := n.cache
	n.mu.Unlock()
	if r := cached.get(seq); r != nil {
		return *r, nil
	}
	if _, err := n.bucket(); err != nil {
		return Record{}, err
	}
	msg, err := n.stream.GetMsg(ctx, seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return n.getFromLeader(ctx, seq)
	case err != nil:
		return Record{}, fmt.Errorf("%w: read event %d: %w", ErrUnavailable, seq, plainJetStream(err))
	}
	return n.record(message{seq: seq, data: msg.Data})
}

// getFromLeader reads an event from the server that leads the stream. Any server answers the usual reading, also one
// that lags behind: what that does not have is not gone. (JetStream: STREAM.MSG.GET.)
func (n *NATS) getFromLeader(ctx context.Context, seq uint64) (Record, error) {
	known := n.State().LastSeq
	info, err := n.info(ctx, n.name())
	if err != nil {
		return Record{}, fmt.Errorf("%w: read event %d: %w", ErrUnavailable, seq, err)
	}
	if last := info.State.LastSeq; last < seq && seq <= known { // it leads since a moment ago
		return Record{}, fmt.Errorf("%w: the stream's leader has %d events, %d are known to be kept", ErrUnavailable, last, known)
	}
	found, ok, err := n.messageOfLeader(ctx, seq)
	if err != nil {
		return Record{}, fmt.Errorf("%w: read event %d: %w", ErrUnavailable, seq, err)
	}
	if !ok {
		return Record{}, ErrNotFound
	}
	return n.record(message{seq: seq, data: found.data})
}

// leaderMessage is a message as the server has it that leads the stream.
type leaderMessage struct {
	data []byte
	time time.Time // when the servers stored it
}

// messageOfLeader reads a message of the stream from the server that leads it; ok is false where there is none.
func (n *NATS) messageOfLeader(ctx context.Context, seq uint64) (m leaderMessage, ok bool, err error) {
	request, err := json.Marshal(map[string]any{"seq": seq})
	if err != nil {
		return m, false, err
	}
	answer, err := n.conn().RequestWithContext(ctx, n.api+".STREAM.MSG.GET."+n.name(), request)
	if err != nil {
		return m, false, plainJetStream(err)
	}
	var said struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Data []byte    `json:"data"`
			Time time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(answer.Data, &said); {
	case err != nil:
		return m, false, fmt.Errorf("expected JSON from the servers: %w", err)
	case said.Error != nil && said.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return m, false, nil
	case said.Error != nil:
		return m, false, plainJetStream(said.Error)
	}
	return leaderMessage{said.Message.Data, said.Message.Time}, true, nil
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
	lines, _, err := n.batch(n.ctx, n.logStream(), n.subject("log."+strconv.FormatUint(seq, 10)), 1, maxAttempts)
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
	lines, _, err := n.batch(n.ctx, n.logStream(), n.subject("log.*"), uint64(logged)+1, maxLatest)
	if err != nil {
		return nil, logged
	}
	for _, line := range lines {
		last = int64(line.seq)
		seq, err := seqOfKey(line.subject)
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
