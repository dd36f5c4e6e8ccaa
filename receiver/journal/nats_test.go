package journal_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/test/certs"
	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/natstest"
	"github.com/pbxhook/pbxhook/test/output"
)

const patience = time.Minute

func openNATS(t *testing.T, servers []*natstest.Server, change func(o *journal.NATSOptions)) *journal.NATS {
	t.Helper()
	o := journal.NATSOptions{
		Namespace: "crm", Webhook: "callcenter", URL: natstest.URL(servers), Replicas: 1, MaxBytes: 64 << 20, Log: slog.New(slog.DiscardHandler),
		LeaseTime: time.Second, LeaseBeat: 200 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	n, err := journal.OpenNATS(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

func usable(t *testing.T, n *journal.NATS) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, n.Problem()) }, patience, 20*time.Millisecond)
}

// owner is a receiver that has partitions.
type owner struct {
	mu     sync.Mutex
	parts  map[int]journal.SharedPart
	ctx    map[int]context.Context
	stop   context.CancelFunc
	ended  chan struct{}
	served int
}

func share(t *testing.T, n *journal.NATS) *owner {
	t.Helper()
	o := &owner{parts: map[int]journal.SharedPart{}, ctx: map[int]context.Context{}, ended: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	go func() {
		defer close(o.ended)
		n.Share(ctx, func(stopped, attempts context.Context, part journal.SharedPart) {
			o.mu.Lock()
			o.parts[part.Index()], o.ctx[part.Index()] = part, attempts
			o.served++
			o.mu.Unlock()
			<-stopped.Done()
			o.mu.Lock()
			delete(o.parts, part.Index())
			o.mu.Unlock()
		})
	}()
	t.Cleanup(o.end)
	return o
}

func (o *owner) end() {
	o.stop()
	<-o.ended
}

func (o *owner) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.parts)
}

func (o *owner) all(t *testing.T) []journal.SharedPart {
	t.Helper()
	require.Eventually(t, func() bool { return o.count() == journal.Partitions }, patience, 20*time.Millisecond)
	o.mu.Lock()
	defer o.mu.Unlock()
	parts := make([]journal.SharedPart, journal.Partitions)
	for i, p := range o.parts {
		parts[i] = p
	}
	return parts
}

// TestNATSKeeps: what was appended comes back as it was, by number, from the end, and by partition, in order.
func TestNATSKeeps(t *testing.T) {
	n := openNATS(t, natstest.Start(t, 1, ""), nil)
	usable(t, n)
	o := share(t, n)
	parts := o.all(t)
	views := make([]journal.Part, len(parts))
	for i, p := range parts {
		views[i] = p.For("crm")
		c, err := views[i].OpenCursor("crm")
		require.NoError(t, err)
		require.Zero(t, c.Floor)
	}
	for i := range 40 {
		r := record(fmt.Sprint("e", i), fmt.Sprint("call", i%7))
		receipt, err := n.Append(t.Context(), r, nil)
		require.NoError(t, err)
		require.EqualValues(t, i+1, receipt.Seq)
		got, err := n.Get(receipt.Seq)
		require.NoError(t, err)
		require.Equal(t, r.Request, got.Request)
	}
	other := openNATS(t, nil, func(o *journal.NATSOptions) { o.URL = n.URL() })
	usable(t, other)
	got, err := other.Get(7)
	require.NoError(t, err)
	require.Equal(t, "e6", got.ID)
	require.Equal(t, record("e6", "").Request, got.Request)
	_, err = other.Get(99)
	require.ErrorIs(t, err, journal.ErrNotFound)

	lanes, total := map[string][]uint64{}, 0
	for _, view := range views {
		entries, err := view.Entries(0, 1000)
		require.NoError(t, err)
		require.Zero(t, view.Unread(0))
		total += len(entries)
		for _, e := range entries {
			require.True(t, len(lanes[e.Lane]) == 0 || lanes[e.Lane][len(lanes[e.Lane])-1] < e.Seq)
			lanes[e.Lane] = append(lanes[e.Lane], e.Seq)
		}
		if len(entries) > 2 {
			first, err := view.Entries(0, 2)
			require.NoError(t, err)
			require.Equal(t, entries[:2], first)
			require.EqualValues(t, len(entries)-2, view.Unread(first[1].Seq))
		}
	}
	require.Equal(t, 40, total)
	require.Len(t, lanes, 7, "a lane is in one partition alone")

	var back []uint64
	require.NoError(t, other.Back(0, func(s journal.Stored) bool {
		r, err := s.Record()
		require.NoError(t, err)
		require.Equal(t, s.Seq, r.Seq)
		back = append(back, r.Seq)
		return len(back) < 39
	}))
	require.Len(t, back, 39)
	require.EqualValues(t, 40, back[0])
	require.True(t, slices.IsSortedFunc(back, func(a, b uint64) int { return int(b) - int(a) }))
	heads, err := other.Heads(38, 10)
	require.NoError(t, err)
	require.Len(t, heads, 2)
	require.Equal(t, "e38", heads[0].ID)
}

// TestNATSGrows: who asks for more replicas, bytes or time gets them, with what is there.
func TestNATSGrows(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 3, "")
	n := openNATS(t, servers, nil)
	usable(t, n)
	_, err := n.Append(t.Context(), record("e", "c"), nil)
	require.NoError(t, err)
	require.Equal(t, 1, n.Replicas(t))
	require.NoError(t, n.Close())
	n = openNATS(t, servers, func(o *journal.NATSOptions) { o.Replicas, o.MaxBytes = 3, 128<<20 })
	usable(t, n)
	require.Equal(t, 3, n.Replicas(t))
	require.EqualValues(t, 128<<20, n.State().MaxBytes)
	require.Eventually(t, func() bool {
		got, err := n.Get(1)
		return err == nil && got.ID == "e"
	}, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := n.Append(t.Context(), record("f", "c"), nil)
		return err == nil
	}, patience, 50*time.Millisecond, "once the new replicas are a quorum")
}

// TestNATSWakesReaders of whichever receiver owns the partition.
func TestNATSWakesReaders(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	n := openNATS(t, servers, nil)
	usable(t, n)
	parts := share(t, n).all(t)
	views := make([]journal.Part, len(parts))
	woken := make(chan int, len(parts)*4)
	for i, p := range parts {
		views[i] = p.For("crm")
		appended := views[i].Appended()
		go func() { <-appended; woken <- i }()
	}
	other := openNATS(t, servers, nil)
	usable(t, other)
	_, err := other.Append(t.Context(), record("e1", "call1"), nil)
	require.NoError(t, err)
	select {
	case i := <-woken:
		require.Eventually(t, func() bool {
			entries, err := views[i].Entries(0, 10)
			return err == nil && len(entries) == 1
		}, patience, 10*time.Millisecond)
	case <-time.After(patience):
		require.Fail(t, "nobody was woken")
	}
}

// TestNATSRepeats are known whichever receiver they reach.
func TestNATSRepeats(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	a, b := openNATS(t, servers, nil), openNATS(t, servers, nil)
	usable(t, a)
	usable(t, b)
	key := journal.RepeatKey{1, 2, 3}
	named := record("e1", "c")
	named.Name = "Cdr"
	first, err := a.Append(t.Context(), named, &key)
	require.NoError(t, err)
	require.False(t, first.Repeat)
	again, err := b.Append(t.Context(), record("e2", "c"), &key)
	require.NoError(t, err)
	require.Equal(t, journal.Receipt{Seq: first.Seq, ID: "e1", Type: event.CallEnded, Repeat: true}, again)
	require.EqualValues(t, 1, b.State().Repeated)
	b.Reject("401: no")
	b.CountURLCheck()
	require.Eventually(t, func() bool {
		s := a.State()
		return s.Repeated == 1 && s.Rejected == 1 && s.LastRejected.Reason == "401: no" && s.Received == 1 &&
			s.URLChecks == 1 && !s.LastURLCheck.IsZero()
	}, patience, 50*time.Millisecond, "what one receiver counts all know")
	byName := []journal.NameCount{{Name: "Cdr", Count: 1, LastReceived: named.Request.ReceivedAt}}
	for _, j := range []journal.Journal{a, b} {
		require.Eventually(t, func() bool { return assert.ObjectsAreEqual(byName, j.State().ByName) }, patience, 50*time.Millisecond, "events by name, too")
	}
}

// TestNATSPartitionsAreShared: fairly, handed over at once by one that ends, and after the lease by one that dies;
// what a former owner writes is refused.
func TestNATSPartitionsAreShared(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 1, "")
	n := openNATS(t, servers, nil)
	usable(t, n)
	first := share(t, n)
	parts := first.all(t)
	view := parts[3].For("crm")
	cursor, err := view.OpenCursor("crm")
	require.NoError(t, err)
	require.NoError(t, view.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: cursor.Floor, Delivered: 7}}))

	m := openNATS(t, servers, nil)
	usable(t, m)
	second := share(t, m)
	require.Eventually(t, func() bool { return first.count() == 8 && second.count() == 8 }, patience, 50*time.Millisecond, "%d %d", first.count(), second.count())
	second.end()
	require.Eventually(t, func() bool { return first.count() == 16 }, patience, 20*time.Millisecond)

	third := openNATS(t, servers, nil)
	usable(t, third)
	heir := share(t, third)
	require.Eventually(t, func() bool { return heir.count() == 8 }, patience, 50*time.Millisecond)
	n.Disconnect() // as a machine that is cut off
	require.Eventually(t, func() bool { return first.count() == 0 }, patience, 20*time.Millisecond, "it stops by its own clock")
	require.Eventually(t, func() bool { return heir.count() == 16 }, patience, 20*time.Millisecond)
	heir.mu.Lock()
	taken := heir.parts[3].For("crm")
	heir.mu.Unlock()
	cursor, err = taken.OpenCursor("crm")
	require.NoError(t, err)
	require.EqualValues(t, 7, cursor.Delivered)
	n.Reconnect()
	require.Eventually(t, func() bool { return n.Problem() == nil }, patience, 20*time.Millisecond)
	require.ErrorIs(t, view.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 99}}), journal.ErrNotOwner)
	cursor, err = taken.OpenCursor("crm")
	require.NoError(t, err)
	require.Zero(t, cursor.Floor)
}

// TestNATSDeadLettersLogAndReplays are seen by every receiver.
func TestNATSDeadLettersLogAndReplays(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 1, "")
	n, other := openNATS(t, servers, nil), openNATS(t, servers, nil)
	usable(t, n)
	usable(t, other)
	parts := share(t, n).all(t)
	receipt, err := n.Append(t.Context(), record("e1", "call1"), nil)
	require.NoError(t, err)
	var view journal.Part
	var part journal.SharedPart
	for _, p := range parts {
		v := p.For("crm")
		_, err := v.OpenCursor("crm")
		require.NoError(t, err)
		if entries, err := v.Entries(0, 10); err == nil && len(entries) == 1 {
			view, part = v, p
		}
	}
	letter := journal.DeadLetter{Record: record("e1", "call1"), Reason: "422 from the target", Status: 422, Reply: "no", Time: time.Now().UTC().Round(0)}
	letter.Record.Seq = receipt.Seq
	attempt := journal.Attempt{Seq: receipt.Seq, Time: time.Now().UTC().Round(0), Duration: time.Millisecond, Result: journal.DeadLettered, Status: 422, Reply: "no"}
	require.NoError(t, view.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: receipt.Seq}, Dead: []journal.DeadLetter{letter}, Attempts: []journal.Attempt{attempt}}))
	letters, err := other.DeadLetters("crm", 0, 10)
	require.NoError(t, err)
	require.Equal(t, []journal.DeadLetter{letter}, letters)
	attempt.Target = "crm"
	require.Eventually(t, func() bool {
		attempts, err := other.Attempts(receipt.Seq)
		return err == nil && len(attempts) == 1 && attempts[0] == attempt
	}, patience, 20*time.Millisecond)
	latest, now := other.Latest(0)
	require.Len(t, latest, 1)
	require.EqualValues(t, 1, now)
	counts := func(dead, logged int64) {
		t.Helper()
		for _, each := range []*journal.NATS{n, other} {
			require.Eventually(t, func() bool { return each.State().DeadLetters == dead && each.State().Logged == logged }, patience, 20*time.Millisecond)
		}
	}
	counts(1, 1)
	latest, _ = other.Latest(other.State().Logged)
	require.Empty(t, latest, "who begins now is not told of what was")
	done, err := other.Done(t.Context(), "crm", []journal.Head{{Seq: receipt.Seq, ID: "e1", Lane: "call1"}, {Seq: 99, ID: "e1", Lane: "call1"}})
	require.NoError(t, err)
	require.Equal(t, []bool{true, false}, done)

	requests := make(chan journal.ReplayRequest, 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		part.ReplayRequests(ctx, func(r journal.ReplayRequest) error { requests <- r; return nil })
	}()
	seqs := journal.Ranges{{From: receipt.Seq, To: receipt.Seq}}
	require.NoError(t, other.Replay(t.Context(), journal.ReplayRequest{Target: "crm", ID: "r1"}, map[int]journal.Ranges{part.Index(): seqs}))
	require.Equal(t, journal.ReplayRequest{Target: "crm", ID: "r1", Share: 1, Seqs: seqs}, <-requests)
	stop()
	<-ended

	require.NoError(t, view.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: receipt.Seq}, Revived: []uint64{receipt.Seq}}))
	letters, err = other.DeadLetters("crm", 0, 10)
	require.NoError(t, err)
	require.Empty(t, letters)
	counts(0, 1)
}

// TestNATSDeadLettersAreBounded: the oldest of a target go, and no other target's.
func TestNATSDeadLettersAreBounded(t *testing.T) {
	t.Parallel()
	n := openNATS(t, natstest.Start(t, 1, ""), func(o *journal.NATSOptions) { o.LeaseTime = time.Minute })
	usable(t, n)
	part := share(t, n).all(t)[0]
	const kept, more = 10_000, 3
	for target, number := range map[string]int{"crm": kept + more, "erp": 2} {
		view := part.For(target)
		_, err := view.OpenCursor(target)
		require.NoError(t, err)
		dead := make([]journal.DeadLetter, number)
		for i := range dead {
			dead[i].Record = record("e", "call")
			dead[i].Record.Seq = uint64(i + 1)
		}
		for each := range slices.Chunk(dead, 1000) {
			require.NoError(t, view.Save(target, journal.Progress{Dead: each}))
		}
	}
	require.Eventually(t, func() bool { return n.State().DeadLetters == kept+more+2 }, patience, 20*time.Millisecond)
	require.NoError(t, part.Trim(t.Context()))
	letters, err := n.DeadLetters("crm", 0, 2*kept)
	require.NoError(t, err)
	require.Len(t, letters, kept)
	require.EqualValues(t, more+1, letters[0].Record.Seq)
	letters, err = n.DeadLetters("erp", 0, 10)
	require.NoError(t, err)
	require.Len(t, letters, 2)
	letters, err = n.DeadLetters("crm", 4999, 1)
	require.NoError(t, err)
	require.Len(t, letters, 1)
	require.EqualValues(t, 5000, letters[0].Record.Seq)
}

// TestNATSRemovedTargets are told of, come back where they were, and are forgotten after a day: until then they hold
// what they did not get.
func TestNATSRemovedTargets(t *testing.T) {
	n := openNATS(t, natstest.Start(t, 1, ""), func(o *journal.NATSOptions) { o.Retention, o.LeaseTime = time.Nanosecond, time.Minute })
	usable(t, n)
	receipt, err := n.Append(t.Context(), record("e", "call"), nil)
	require.NoError(t, err)
	part := share(t, n).all(t)[journal.PartitionOf(journal.Head{ID: "e", Lane: "call"})]
	crm, erp := part.For("crm"), part.For("erp")
	for _, view := range []journal.Part{crm, erp} {
		_, err := view.OpenCursor(map[journal.Part]string{crm: "crm", erp: "erp"}[view])
		require.NoError(t, err)
	}
	require.NoError(t, erp.Save("erp", journal.Progress{Cursor: journal.Cursor{Floor: receipt.Seq}}))
	require.NoError(t, crm.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 0}}))
	require.NoError(t, part.KeepCursors([]string{"erp"}))
	require.NoError(t, crm.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 0, Delivered: 3}}), "what it finished meanwhile")
	require.NoError(t, part.Trim(t.Context()))
	removed := n.State().Removed
	require.Len(t, removed, 1)
	require.Equal(t, "crm", removed[0].Name)
	require.EqualValues(t, 1, removed[0].Pending)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), removed[0].Until, time.Minute)
	_, err = n.Get(receipt.Seq)
	require.NoError(t, err)

	require.NoError(t, part.KeepCursors([]string{"crm", "erp"}))
	require.NoError(t, part.Trim(t.Context()))
	require.Empty(t, n.State().Removed)
	require.NoError(t, part.KeepCursors([]string{"erp"}))
	n.Age(t, part, "crm", 25*time.Hour)
	require.NoError(t, part.Trim(t.Context()))
	require.Empty(t, n.State().Removed)
	again := openNATS(t, nil, func(o *journal.NATSOptions) { o.URL = n.URL() })
	usable(t, again)
	_, err = again.Get(receipt.Seq)
	require.ErrorIs(t, err, journal.ErrNotFound, "the forgotten target holds nothing any more")
}

// TestNATSTargetsChangeWhileCursorsAreWritten: neither write is lost, nor refused for the other.
func TestNATSTargetsChangeWhileCursorsAreWritten(t *testing.T) {
	n := openNATS(t, natstest.Start(t, 1, ""), func(o *journal.NATSOptions) { o.LeaseTime = time.Minute })
	usable(t, n)
	receipt, err := n.Append(t.Context(), record("e", "call"), nil)
	require.NoError(t, err)
	part := share(t, n).all(t)[journal.PartitionOf(journal.Head{ID: "e", Lane: "call"})]
	crm := part.For("crm")
	_, err = crm.OpenCursor("crm")
	require.NoError(t, err)
	const times = 200
	var delivering sync.WaitGroup
	delivering.Go(func() {
		for i := range times {
			if err := crm.Save("crm", journal.Progress{Cursor: journal.Cursor{Delivered: int64(i)}}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range times / 2 {
		require.NoError(t, part.KeepCursors([]string{"crm"}))
		require.NoError(t, part.KeepCursors(nil))
	}
	delivering.Wait()
	require.NoError(t, crm.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: receipt.Seq}}))
	require.NoError(t, part.Trim(t.Context()))
	removed := n.State().Removed
	require.Len(t, removed, 1)
	require.Zero(t, removed[0].Pending)
}

// TestNATSCursorsAreGone: those that were made in their place, with numbers that begin anew, are written over.
func TestNATSCursorsAreGone(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 1, "")
	n := openNATS(t, servers, func(o *journal.NATSOptions) { o.LeaseTime = time.Minute })
	n.Targets([]string{"crm"})
	usable(t, n)
	part := share(t, n).all(t)[0]
	crm := part.For("crm")
	_, err := crm.OpenCursor("crm")
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, crm.Save("crm", journal.Progress{Cursor: journal.Cursor{Delivered: int64(i)}}))
	}
	conn, err := nats.Connect(natstest.URL(servers))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	bucket := "pbxhook_crm_callcenter"
	require.NoError(t, js.DeleteKeyValue(t.Context(), bucket))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		kv, err := js.KeyValue(t.Context(), bucket)
		require.NoError(c, err)
		_, err = kv.Get(t.Context(), "cursor.0.crm")
		require.NoError(c, err)
	}, patience, 50*time.Millisecond)
	require.NoError(t, crm.Save("crm", journal.Progress{Cursor: journal.Cursor{Delivered: 100}}))
}

// TestNATSIsFull, gone, and refuses: each is said, at once, and heals by itself.
func TestNATSTroubles(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 1, "max_payload: 200000\nauthorization { user: pbx, password: secret }")
	refused := openNATS(t, servers, func(o *journal.NATSOptions) { o.User, o.Password = "pbx", "wrong" })
	require.Never(t, func() bool { return refused.Problem() == nil }, time.Second, 50*time.Millisecond)
	require.NotContains(t, refused.Problem().Error(), "wrong")
	_, err := refused.Append(t.Context(), record("e", "c"), nil)
	require.ErrorIs(t, err, journal.ErrUnavailable)

	n := openNATS(t, servers, func(o *journal.NATSOptions) { o.User, o.Password, o.MaxBytes = "pbx", "secret", 256<<10 })
	usable(t, n)
	large := record("e", "c")
	large.Request.Body = []byte(strings.Repeat("x", 150_000))
	_, err = n.Append(t.Context(), large, nil)
	require.ErrorIs(t, err, journal.ErrTooLarge)
	large.Request.Body = large.Request.Body[:50_000]
	for err = nil; err == nil; {
		_, err = n.Append(t.Context(), large, nil)
	}
	require.ErrorIs(t, err, journal.ErrFull)
	servers[0].Kill()
	require.Eventually(t, func() bool {
		began := time.Now()
		_, err := n.Append(t.Context(), record("e", "c"), nil)
		require.Error(t, err)
		return strings.Contains(err.Error(), "not reached") && time.Since(began) < time.Second
	}, patience, 50*time.Millisecond, "refused at once")
	servers[0].Run()
	require.Eventually(t, func() bool {
		err := n.Problem()
		return err != nil && strings.Contains(err.Error(), "has reached its maxBytes")
	}, patience, 50*time.Millisecond, "it is still full, and that is said")

	_, err = journal.OpenNATS(journal.NATSOptions{Namespace: "a", Webhook: "b", URL: "nats://127.0.0.1:1", NKey: "nonsense", Log: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "expected an NKey's seed")
}

// TestNATSWithoutAQuorum: one server of three still answers; that nothing can be kept is said, and soon at once.
func TestNATSWithoutAQuorum(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 3, "")
	n := openNATS(t, servers, func(o *journal.NATSOptions) { o.Replicas = 3 })
	usable(t, n)
	_, err := n.Append(t.Context(), record("a", "c"), nil)
	require.NoError(t, err)
	servers[0].Signal(syscall.SIGSTOP)
	servers[1].Signal(syscall.SIGSTOP)
	_, err = n.Append(t.Context(), record("b", "c"), nil)
	require.ErrorIs(t, err, journal.ErrUnavailable)
	require.Eventually(t, func() bool {
		err := n.Problem()
		return err != nil && strings.Contains(err.Error(), "quorum")
	}, patience, 50*time.Millisecond)
	servers[0].Signal(syscall.SIGCONT)
	servers[1].Signal(syscall.SIGCONT)
	usable(t, n)
	require.Eventually(t, func() bool {
		_, err := n.Append(t.Context(), record("d", "c"), nil)
		return err == nil
	}, patience, 50*time.Millisecond)
}

// TestNATSLeaderIsAway: what comes while the stream has no leader waits for another one, and is kept once, also when
// the former leader comes back with what was sent to it.
func TestNATSLeaderIsAway(t *testing.T) {
	t.Parallel()
	for range 3 { // servers that vote for different ones may take longer than is waited for
		if leaderIsAway(t) {
			return
		}
	}
	require.Fail(t, "nothing is waited for")
}

// leaderIsAway says whether all was kept that came meanwhile.
func leaderIsAway(t *testing.T) (kept bool) {
	t.Helper()
	servers := natstest.Start(t, 3, "")
	n := openNATS(t, servers, func(o *journal.NATSOptions) { o.Replicas = 3 })
	usable(t, n)
	key := journal.RepeatKey{7}
	keep := func(id string, key *journal.RepeatKey) (journal.Receipt, bool) {
		receipt, err := n.Append(t.Context(), record(id, "c"), key)
		if err != nil {
			require.ErrorIs(t, err, journal.ErrUnavailable)
			t.Log(err)
		}
		return receipt, err == nil
	}
	if _, kept = keep("a", nil); !kept {
		return false
	}
	leader := servers[natstest.Leader(t, servers, "pbxhook_crm_callcenter")]
	leader.Signal(syscall.SIGSTOP)
	for _, id := range []string{"b", "d"} {
		if _, kept = keep(id, nil); !kept {
			return false
		}
	}
	first, kept := keep("e", &key)
	if !kept {
		return false
	}
	require.False(t, first.Repeat)
	leader.Signal(syscall.SIGCONT)
	time.Sleep(2 * time.Second) // it hands on what it finds
	again, kept := keep("f", &key)
	if !kept {
		return false
	}
	require.True(t, again.Repeat)
	require.Equal(t, "e", again.ID)
	usable(t, n)
	heads, err := n.Heads(0, 10)
	require.NoError(t, err)
	var ids []string
	for _, h := range heads {
		ids = append(ids, h.ID)
	}
	require.Equal(t, []string{"a", "b", "d", "e"}, ids)
	return true
}

// TestNATSServersRestart, one after the other and then all at once: the stream is the one that it was.
func TestNATSServersRestart(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 3, "")
	log := &output.Text{}
	n := openNATS(t, servers, func(o *journal.NATSOptions) { o.Replicas, o.Log = 3, slog.New(slog.NewTextHandler(log, nil)) })
	usable(t, n)
	keep := func() uint64 {
		t.Helper()
		var receipt journal.Receipt
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			var err error
			receipt, err = n.Append(t.Context(), record("e", "c"), nil)
			require.NoError(c, err)
		}, patience, 100*time.Millisecond)
		return receipt.Seq
	}
	last := keep()
	again := func(some []*natstest.Server) {
		t.Helper()
		for _, s := range some {
			s.Kill()
		}
		for _, s := range some {
			s.Run()
		}
		seq := keep()
		require.Greater(t, seq, last)
		last = seq
		usable(t, n)
	}
	for i := range servers {
		again(servers[i : i+1])
	}
	again(servers)
	require.NotContains(t, log.String(), "the stream is gone")
}

// TestNATSDropped: nothing is left, and to drop it once more is no error.
func TestNATSDropped(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	n := openNATS(t, servers, nil)
	usable(t, n)
	_, err := n.Append(t.Context(), record("e", "c"), nil)
	require.NoError(t, err)
	require.NoError(t, n.Close())
	o := journal.NATSOptions{Namespace: "crm", Webhook: "callcenter", URL: natstest.URL(servers), Log: slog.New(slog.DiscardHandler)}
	require.NoError(t, journal.DropNATS(t.Context(), o))
	require.NoError(t, journal.DropNATS(t.Context(), o))
	n = openNATS(t, servers, nil)
	usable(t, n)
	require.Zero(t, n.State().LastSeq)
	o.URL = "nats://127.0.0.1:1"
	require.ErrorContains(t, journal.DropNATS(t.Context(), o), "connect to NATS")
}

// TestNATSTrims what is delivered and old, or in the way, and nothing else.
func TestNATSTrims(t *testing.T) {
	servers := natstest.Start(t, 1, "")
	n := openNATS(t, servers, func(o *journal.NATSOptions) { o.Retention = time.Nanosecond })
	usable(t, n)
	parts := share(t, n).all(t)
	for i := range 64 {
		_, err := n.Append(t.Context(), record(fmt.Sprint("e", i), fmt.Sprint("call", i)), nil)
		require.NoError(t, err)
	}
	for _, p := range parts {
		require.NoError(t, p.Trim(t.Context()))
	}
	heads, err := n.Heads(0, 100)
	require.NoError(t, err)
	require.Len(t, heads, 64, "without cursors nothing is known to be delivered")
	for _, p := range parts {
		v := p.For("crm")
		_, err := v.OpenCursor("crm")
		require.NoError(t, err)
		require.NoError(t, v.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 32}}))
		require.NoError(t, p.Trim(t.Context()))
	}
	heads, err = n.Heads(0, 100)
	require.NoError(t, err)
	require.Len(t, heads, 32)
	require.EqualValues(t, 33, heads[0].Seq)
}

// TestNATSCredentials of every kind are accepted, over TLS too, and what is missing is said without a secret.
func TestNATSCredentials(t *testing.T) {
	pair, err := nkeys.CreateUser()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	seed, err := pair.Seed()
	require.NoError(t, err)
	certificate, key := certs.SelfSigned(t, "127.0.0.1")
	folder := t.TempDir()
	crtFile, keyFile := filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key")
	require.NoError(t, os.WriteFile(crtFile, []byte(certificate), 0o600))
	require.NoError(t, os.WriteFile(keyFile, []byte(key), 0o600))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(certificate)))
	mine, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	require.NoError(t, err)
	secure := fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", crtFile, keyFile, crtFile)
	for name, tt := range map[string]struct {
		conf   string
		change func(o *journal.NATSOptions)
		well   bool
	}{
		"token":       {`authorization { token: "s3cret" }`, func(o *journal.NATSOptions) { o.Token = "s3cret" }, true},
		"wrong token": {`authorization { token: "s3cret" }`, func(o *journal.NATSOptions) { o.Token = "s3cret2" }, false},
		"nkey":        {"authorization { users: [{nkey: " + public + "}] }", func(o *journal.NATSOptions) { o.NKey = string(seed) + "\n" }, true},
		"nothing":     {`authorization { token: "s3cret" }`, func(*journal.NATSOptions) {}, false},
		"TLS": {secure, func(o *journal.NATSOptions) {
			o.TLS = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{mine}}
		}, true},
		"no client":     {secure, func(o *journal.NATSOptions) { o.TLS = &tls.Config{RootCAs: roots} }, false},
		"another CA":    {secure, func(o *journal.NATSOptions) { o.TLS = &tls.Config{Certificates: []tls.Certificate{mine}} }, false},
		"domain":        {"", func(o *journal.NATSOptions) { o.Domain = "hub" }, false},
		"no JetStream":  {"accounts { A: { users: [{user: a, password: s3cret}] } }", func(o *journal.NATSOptions) { o.User, o.Password = "a", "s3cret" }, false},
		"may not do it": {`authorization { users: [{user: a, password: s3cret, permissions: {publish: ["_INBOX.>"], subscribe: ["_INBOX.>"]}}] }`, func(o *journal.NATSOptions) { o.User, o.Password = "a", "s3cret" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := openNATS(t, natstest.Start(t, 1, tt.conf), tt.change)
			if tt.well {
				usable(t, n)
				_, err := n.Append(t.Context(), record("e", "c"), nil)
				require.NoError(t, err)
				return
			}
			require.Never(t, func() bool { return n.Problem() == nil }, 2*time.Second, 100*time.Millisecond)
			require.NotContains(t, n.Problem().Error(), "s3cret")
			t.Log(n.Problem())
		})
	}
}

// TestNATSReadsWhatAServerLacks: one that lags behind answers reads too. What it does not have yet is not gone.
func TestNATSReadsWhatAServerLacks(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 3, "")
	replicated := func(servers []*natstest.Server) *journal.NATS {
		n := openNATS(t, servers, func(o *journal.NATSOptions) { o.Replicas, o.MaxBytes = 3, 256<<20 })
		usable(t, n)
		return n
	}
	replicated(servers)
	lagging := (natstest.Leader(t, servers, "pbxhook_crm_callcenter") + 1) % len(servers)
	leading := replicated(append(servers[:lagging:lagging], servers[lagging+1:]...))
	behind := replicated(servers[lagging : lagging+1])
	r := record("e", "call")
	r.Request.Body = []byte(strings.Repeat("x", 8<<10))
	servers[lagging].Signal(syscall.SIGSTOP)
	const events = 20000
	var appended sync.WaitGroup
	for range 20 {
		appended.Go(func() {
			for range events / 20 {
				_, err := leading.Append(t.Context(), r, nil)
				require.NoError(t, err)
			}
		})
	}
	appended.Wait()
	got := make(chan error, 50)
	for range cap(got) {
		go func() {
			_, err := behind.Get(events)
			got <- err
		}()
	}
	time.Sleep(100 * time.Millisecond) // they wait for the server, which answers them before it has caught up
	servers[lagging].Signal(syscall.SIGCONT)
	for range cap(got) {
		if err := <-got; !errors.Is(err, journal.ErrUnavailable) { // where it took so long that the servers have no leader
			require.NoError(t, err)
		}
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, err := behind.Get(events)
		assert.NoError(c, err)
	}, patience, 100*time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := behind.Get(events + 1)
		return errors.Is(err, journal.ErrNotFound)
	}, patience, 100*time.Millisecond, "once there is a leader again that can say so")
}

// TestNATSAccountsAndDomains: JetStream of another account, of a domain behind a leaf node, and of an account whose
// users come with a creds file.
func TestNATSAccountsAndDomains(t *testing.T) {
	hub, leaf := filepath.Join(t.TempDir(), "js"), loopback.Free(t)
	operator, account, creds := jwtUser(t)
	for name, tt := range map[string]struct {
		conf, leaf string
		change     func(o *journal.NATSOptions)
	}{
		"account": {conf: `accounts {
			JS: { jetstream: enabled, users: [{user: js, password: js}], exports: [
				{service: "$JS.API.>", response: stream}, {service: "$KV.>"}, {service: "pbxhook.>"}] }
			PBX: { users: [{user: pbx, password: s3cret}], imports: [
				{service: {account: JS, subject: "$JS.API.>"}, to: "JS.storage.API.>"},
				{service: {account: JS, subject: "$KV.>"}, to: "JS.storage.API.$KV.>"},
				{service: {account: JS, subject: "pbxhook.>"}}] }
		}`, change: func(o *journal.NATSOptions) { o.User, o.Password, o.Account = "pbx", "s3cret", "storage" }},
		"domain": {
			conf:   fmt.Sprintf("jetstream { store_dir: %q, domain: hub }\nleafnodes { listen: %q }", hub, leaf),
			leaf:   fmt.Sprintf("jetstream: false\nleafnodes { remotes: [{ url: \"nats-leaf://%s\" }] }", leaf),
			change: func(o *journal.NATSOptions) { o.Domain = "hub" },
		},
		"creds file": {conf: operator + account, change: func(o *journal.NATSOptions) { o.Creds = creds }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, 1, tt.conf)
			if tt.leaf != "" {
				servers = natstest.Start(t, 1, tt.leaf)
			}
			n := openNATS(t, servers, tt.change)
			usable(t, n)
			part := share(t, n).all(t)[0]
			receipt, err := n.Append(t.Context(), record("e", "c"), nil)
			require.NoError(t, err)
			other := openNATS(t, servers, tt.change)
			usable(t, other)
			got, err := other.Get(receipt.Seq)
			require.NoError(t, err)
			require.Equal(t, "e", got.ID)
			view := part.For("crm")
			_, err = view.OpenCursor("crm")
			require.NoError(t, err)
			letter := journal.DeadLetter{Record: got}
			require.NoError(t, view.Save("crm", journal.Progress{Dead: []journal.DeadLetter{letter}, Attempts: []journal.Attempt{{Seq: receipt.Seq}}}))
			letters, err := other.DeadLetters("crm", 0, 10)
			require.NoError(t, err)
			require.Len(t, letters, 1)
			require.Eventually(t, func() bool { return other.State().DeadLetters == 1 && other.State().Logged == 1 }, patience, 20*time.Millisecond)
			heads, err := other.Heads(0, 10)
			require.NoError(t, err)
			require.Len(t, heads, 1)
		})
	}
}

// jwtUser makes an operator, an account with JetStream, and a user's creds file.
func jwtUser(t *testing.T) (operator, account string, creds []byte) {
	t.Helper()
	operator, account, creds, _ = jwtRevoked(t)
	return operator, account, creds
}

// jwtRevoked is jwtUser, with the account's configuration in which the user is revoked.
func jwtRevoked(t *testing.T) (operator, account string, creds []byte, revoked string) {
	t.Helper()
	pair := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		p, err := make()
		require.NoError(t, err)
		public, err := p.PublicKey()
		require.NoError(t, err)
		return p, public
	}
	operatorPair, operatorKey := pair(nkeys.CreateOperator)
	accountPair, accountKey := pair(nkeys.CreateAccount)
	_, systemKey := pair(nkeys.CreateAccount)
	userPair, userKey := pair(nkeys.CreateUser)
	oc := jwt.NewOperatorClaims(operatorKey)
	oc.SystemAccount = systemKey
	operatorJWT, err := oc.Encode(operatorPair)
	require.NoError(t, err)
	ac := jwt.NewAccountClaims(accountKey)
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1, MaxBytesRequired: false}
	accountJWT, err := ac.Encode(operatorPair)
	require.NoError(t, err)
	systemJWT, err := jwt.NewAccountClaims(systemKey).Encode(operatorPair)
	require.NoError(t, err)
	userJWT, err := jwt.NewUserClaims(userKey).Encode(accountPair)
	require.NoError(t, err)
	seed, err := userPair.Seed()
	require.NoError(t, err)
	creds, err = jwt.FormatUserConfig(userJWT, seed)
	require.NoError(t, err)
	ac.Revoke(userKey)
	revokedJWT, err := ac.Encode(operatorPair)
	require.NoError(t, err)
	preload := func(account string) string {
		return fmt.Sprintf("resolver_preload { %s: %s, %s: %s }\n", accountKey, account, systemKey, systemJWT)
	}
	return fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\n", operatorJWT, systemKey), preload(accountJWT), creds, preload(revokedJWT)
}

// TestNATSServersThatAreTooOld are told from others, whatever stands behind their version.
func TestNATSServersThatAreTooOld(t *testing.T) {
	for version, tooOld := range map[string]bool{
		"2.10.29": true, "2.9.0": true, "1.4.1": true, "": true, "nonsense": true, "2.10.99-RC.1": true,
		"2.11.0": false, "2.11.0-RC.1": false, "2.15.2": false, "2.100.0": false, "3.0.0": false,
	} {
		require.Equal(t, tooOld, journal.Older(version, "2.11.0"), version)
	}
}

// TestNATSGoesBackUnseen: the stream goes back, and has more events again before a receiver looks. Cursors do not take the
// new ones for those that they know.
func TestNATSGoesBackUnseen(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, 1, "")
	n := openNATS(t, servers, nil)
	n.Targets([]string{"crm"})
	usable(t, n)
	fill := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			_, err := n.Append(t.Context(), record(fmt.Sprint("e", i), fmt.Sprint("call", i)), nil)
			require.NoError(t, err)
		}
	}
	pass := func() {
		t.Helper()
		for _, p := range share(t, n).all(t) {
			v := p.For("crm")
			cursor, err := v.OpenCursor("crm")
			require.NoError(t, err)
			entries, err := v.Entries(cursor.Floor, 1000)
			require.NoError(t, err)
			if len(entries) > 0 {
				cursor.Floor = entries[len(entries)-1].Seq
			}
			require.NoError(t, v.Save("crm", journal.Progress{Cursor: cursor}))
		}
	}
	fill(0, 20)
	servers[0].Kill()
	backup := servers[0].Backup()
	servers[0].Run()
	usable(t, n)
	fill(20, 200)
	pass()
	require.NoError(t, n.Close())
	servers[0].Kill()
	servers[0].Restore(backup, "pbxhook_crm_callcenter")
	servers[0].Run()
	conn, err := nats.Connect(natstest.URL(servers))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "pbxhook_crm_callcenter")
	require.NoError(t, err)
	for i := range uint64(300) {
		msg, err := stream.GetMsg(t.Context(), 1+i%20)
		require.NoError(t, err)
		_, err = js.Publish(t.Context(), msg.Subject, msg.Data)
		require.NoError(t, err)
	}
	n = openNATS(t, servers, nil)
	n.Targets([]string{"crm"})
	usable(t, n)
	o := share(t, n)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.Equal(c, journal.Partitions, o.count())
		for _, p := range o.all(t) {
			cursor, err := p.For("crm").OpenCursor("crm")
			require.NoError(c, err)
			require.LessOrEqual(c, cursor.Floor, uint64(20))
		}
	}, patience, 50*time.Millisecond)
	require.Contains(t, n.State().Damage, "has gone back")
}
