package journal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// How long an event waits to be kept. Its sender may have gone before: it is kept all the same, as it would not be sent
// again.
const (
	// returnTime is for what is over soon, from when all was well last: the way to another server, cursors of a target
	// that is new.
	returnTime = 4 * time.Second
	// electionTime is for a stream that lost its leader, from when that answered last. (NATS: the others wait 4 to 9 s for
	// it before they choose another one.)
	electionTime = 15 * time.Second
	// leastTime is for a stream that has been silent for longer.
	leastTime = 2 * time.Second
	// sendTime is after which it is sent once more: what went to a server that is gone is gone.
	sendTime  = 2 * time.Second
	sendPause = 100 * time.Millisecond
)

// Append implements Journal.
func (n *NATS) Append(ctx context.Context, r Record, key *RepeatKey) (Receipt, error) {
	if err := n.awaitUsable(ctx); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	part := partitionOf(&r)
	msg := &nats.Msg{Subject: n.partSubject(part), Data: encode(0, &r), Header: nats.Header{}}
	msg.Header.Set(nats.MsgIdHdr, n.once(key))
	n.mu.Lock()
	known := n.known
	msg.Header.Set(epochHeader, n.epoch)
	n.mu.Unlock()
	if most := n.conn().MaxPayload() - payloadReserve; most < leastEvent {
		return Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, tooSmall(most+payloadReserve))
	} else if int64(len(msg.Data)) > most {
		return Receipt{}, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLarge, len(msg.Data), most)
	}
	ack, sent, err := n.publish(ctx, msg)
	if err != nil {
		err = n.refusal(err)
		if ctx.Err() == nil { // else its sender has gone
			n.met(publishing, err)
		}
		return Receipt{}, err
	}
	n.met(publishing, nil)
	if ack.Duplicate && key != nil {
		receipt, err := n.repeated(ctx, ack.Sequence)
		if sent == 1 || err != nil || receipt.ID != r.ID {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.counted.Repeated++
			return receipt, err
		}
	} // else what is stored is what was sent before, and not answered
	if !ack.Duplicate && ack.Sequence <= known {
		n.noteGoneBack() // and it is stored
	}
	r.Seq = ack.Sequence
	n.appended(part, &r)
	return Receipt{Seq: r.Seq, ID: r.ID, Type: r.Type}, nil
}

// once is by what the servers tell that they have an event already: that a PBX may send twice, or that we do.
func (n *NATS) once(key *RepeatKey) string {
	if key != nil {
		return hex.EncodeToString(key[:])
	}
	return n.id + strconv.FormatUint(n.sent.Add(1), 36)
}

// awaitUsable waits for what is over soon.
func (n *NATS) awaitUsable(ctx context.Context) error {
	n.mu.Lock()
	err, until := n.unusable(), n.heard.Add(returnTime)
	n.mu.Unlock()
	for err != nil && time.Now().Before(until) && wait(ctx, sendPause) {
		n.mu.Lock()
		err = n.unusable()
		n.mu.Unlock()
	}
	return err
}

// publish sends a message until it is kept, or refused, or its time is over. What was not refused may be kept all the
// same, and later.
func (n *NATS) publish(ctx context.Context, msg *nats.Msg) (ack *jetstream.PubAck, sent int, err error) {
	n.mu.Lock()
	until := n.heard.Add(electionTime)
	if f := n.failing[publishing]; f != nil && f.since.Add(electionTime).Before(until) {
		until = f.since.Add(electionTime) // whatever answers to others
	}
	n.mu.Unlock()
	if least := time.Now().Add(leastTime); until.Before(least) {
		until = least
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		sent++
		ack, err = n.publishOnce(ctx, msg)
		if !passing(err) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.heard = time.Now()
			return ack, sent, err
		}
		if !wait(ctx, sendPause) {
			return nil, sent, err
		}
	}
}

func (n *NATS) publishOnce(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	return n.js().PublishMsg(ctx, msg, jetstream.WithExpectStream(n.name()), jetstream.WithRetryAttempts(0))
}

// passing is whether an error is not the stream's own answer, so that it is worth while to ask again. (NATS server:
// jetstream_errors.)
func passing(err error) bool {
	const unavailable, inProcess, tooMany = 10008, 10158, 10167
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode == unavailable || api.ErrorCode == inProcess || api.ErrorCode == tooMany
	}
	return err != nil && !errors.Is(err, nats.ErrConnectionClosed)
}

// appended takes in that an event is kept, and tells the receiver that has its partition. Who does not hear it looks by
// itself.
func (n *NATS) appended(part int, r *Record) {
	n.mu.Lock()
	n.cache.add(r)
	n.known = max(n.known, r.Seq)
	n.state.LastReceived = r.Request.ReceivedAt
	if r.Type == event.Unparsed {
		n.counted.Unparsed++
	}
	n.counted.ByName.add(r.Name, 1, r.Request.ReceivedAt)
	if r.OtherVersion != "" {
		n.counted.OtherVersion++
		n.counted.LastOtherVersion = r.OtherVersion
	}
	own := n.parts[part] != nil
	n.mu.Unlock()
	if n.told(part, r.Seq); !own {
		_ = n.conn().Publish(n.newSubject(part), []byte(strconv.FormatUint(r.Seq, 10)))
	}
}

// refusal says why an event was not kept.
func (n *NATS) refusal(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && strings.Contains(api.Description, "maximum bytes exceeded") {
		return fmt.Errorf("%w: the stream %s has reached its maxBytes", ErrFull, n.name())
	}
	if errors.As(err, &api) && (strings.Contains(api.Description, "resources") || strings.Contains(api.Description, "storage")) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, plainJetStream(err))
}

// repeated is the receipt of an event that was kept before.
func (n *NATS) repeated(ctx context.Context, seq uint64) (Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, natsTimeout)
	defer cancel()
	first, err := n.get(ctx, seq)
	if errors.Is(err, ErrNotFound) { // delivered and trimmed within the window
		return Receipt{Seq: seq, Repeat: true}, nil
	}
	return Receipt{Seq: seq, ID: first.ID, Type: first.Type, Repeat: true}, err
}
