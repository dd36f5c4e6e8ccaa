package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

const valueBatch = 500 // values that are read at once

// read reads a value of the bucket; revision 0: there is none.
func (n *NATS) read(ctx context.Context, key string, value any) (revision uint64, err error) {
	kv, err := n.bucket()
	if err != nil {
		return 0, err
	}
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, plainJetStream(err))
	}
	if err := unseal([]byte(key), entry.Value(), value); err != nil {
		return 0, &DamagedError{File: n.name(), Err: fmt.Errorf("%s: %w", key, err)}
	}
	return entry.Revision(), nil
}

// write writes a value over a revision that was read (0: there was none).
func (n *NATS) write(ctx context.Context, key string, value any, revision uint64) (uint64, error) {
	kv, err := n.bucket()
	if err != nil {
		return 0, err
	}
	data, err := seal([]byte(key), value)
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", key, err)
	}
	if revision == 0 {
		revision, err = kv.Create(ctx, key, data)
	} else {
		revision, err = kv.Update(ctx, key, data, revision)
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", key, plainJetStream(err))
	}
	return revision, nil
}

// outdated is whether a write failed because somebody else wrote meanwhile.
func outdated(err error) bool {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return true
	}
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// bucket is where cursors are, or why it cannot be used.
func (n *NATS) bucket() (jetstream.KeyValue, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kv == nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, n.problem)
	}
	return n.kv, nil
}

// value is one of a bucket.
type value struct {
	key      string
	data     []byte
	revision uint64
}

// eachValue calls do for each value of a bucket whose key matches, in the order in which they were written.
func (n *NATS) eachValue(ctx context.Context, bucket, keys string, do func(v value) error) error {
	prefix := "$KV." + bucket + "."
	for from := uint64(1); ; {
		all, left, err := n.batch(ctx, streamOf(bucket), prefix+keys, from, valueBatch)
		if err != nil {
			return err
		}
		for _, m := range all {
			from = m.seq + 1
			if m.erased {
				continue
			}
			if err := do(value{key: strings.TrimPrefix(m.subject, prefix), data: m.data, revision: m.seq}); err != nil {
				return err
			}
		}
		if left == 0 || len(all) == 0 {
			return nil
		}
	}
}

// erase deletes a value without a mark that there was one.
func (n *NATS) erase(ctx context.Context, bucket, key string) error {
	return n.eraseUpTo(ctx, bucket, key, 0)
}

// eraseUpTo deletes a value without a mark that there was one, unless it was written after a revision (0: in any case).
func (n *NATS) eraseUpTo(ctx context.Context, bucket, key string, revision uint64) error {
	which := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject("$KV." + bucket + "." + key)}
	if revision > 0 {
		which = append(which, jetstream.WithPurgeSequence(revision+1))
	}
	stream, err := n.js().Stream(ctx, streamOf(bucket))
	if err == nil {
		err = stream.Purge(ctx, which...)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, plainJetStream(err))
	}
	return nil
}

// notThere reports whether a stream does not exist.
func notThere(err error) bool { return errors.Is(err, jetstream.ErrStreamNotFound) }
