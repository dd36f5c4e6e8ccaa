package dispatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// timeout is how long an attempt takes that the target does not answer.
const timeout = 10 * time.Second

// seeds is how many schedules of faults a run of the model tries.
const seeds = 2_000

// TestModel tries the promises of dispatch under random schedules of faults, in virtual time: answers,
// delays, outages, poisoned calls, crashes, restarts, replays, changed configurations. A seed that
// fails is tried again with MODEL_SEED=<seed>.
func TestModel(t *testing.T) {
	from, to := uint64(0), uint64(seeds)
	if testing.Short() {
		to = 100
	}
	if text := os.Getenv("MODEL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		from, to = seed, seed+1
	}
	for seed := from; seed < to; seed++ {
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newWorld(t, seed).play() })
		}) {
			t.Fatalf("try again with MODEL_SEED=%d", seed)
		}
	}
}

// world is a journal, the targets that read it, and what happens to them.
type world struct {
	t       *testing.T
	random  *luck
	journal *journal.Memory
	targets []*modelTarget
	events  int
	lanes   int
}

// luck is drawn by whoever needs some.
type luck struct {
	mu   sync.Mutex
	rand *rand.Rand
}

// IntN draws a number below n.
func (l *luck) IntN(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rand.IntN(n)
}

// modelTarget is a target with its faults, and the process that delivers to it.
type modelTarget struct {
	*world
	name    string
	policy  dispatch.Policy
	outages []outage
	poison  map[string]poison // by lane: how its events are answered
	slow    time.Duration     // the longest answer
	flaky   int               // percent of 500s
	crashed bool              // it ended without a last word at least once
	starts  []time.Time

	running *dispatch.Dispatcher
	end     func(crash bool)

	mu       sync.Mutex
	busy     map[string]bool
	inFlight int
	tries    []attempt
	replays  int64
	asked    int
}

type outage struct{ from, to time.Time }

// poison is how a target answers the events of a lane that it cannot take, while it takes all others.
type poison struct {
	outcome dispatch.Outcome
	takes   time.Duration
}

// isTimeout reports whether its attempts hold a slot until they time out.
func (p poison) isTimeout() bool { return p.takes > 0 }

// newPoison draws a kind of answer.
func (w *world) newPoison() poison {
	unavailable := dispatch.Outcome{Result: dispatch.Retry, Unavailable: true}
	switch status := []int{-1, 0, 429, 500, 502, 503, 504}[w.random.IntN(7)]; status {
	case -1:
		unavailable.Reason = "connection reset"
		return poison{outcome: unavailable}
	case 0:
		unavailable.Reason = "no answer in time"
		return poison{outcome: unavailable, takes: timeout}
	default:
		p := poison{outcome: dispatch.Outcome{Result: dispatch.Retry, Answered: true, Unavailable: status != 500, Status: status, Reason: fmt.Sprint(status, " from the target")}}
		if (status == 429 || status == 503) && w.random.IntN(2) == 0 {
			p.outcome.RetryAfter = time.Duration(1+w.random.IntN(300)) * time.Second
		}
		return p
	}
}

// attempt is one that was made.
type attempt struct {
	seq       uint64
	lane      string
	at, ended time.Time
	delivered bool
	replay    bool
	down      bool
}

// handle is the journal as one process sees it: after a crash it writes no more.
type handle struct {
	store
	mu   sync.Mutex
	dead bool
}

func (h *handle) Save(target string, p journal.Progress) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return journal.ErrClosed
	}
	return h.store.Save(target, p)
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, random: &luck{rand: rand.New(rand.NewPCG(seed, 1))}, journal: journal.NewMemory()}
	w.events, w.lanes = 5+w.random.IntN(60), 1+w.random.IntN(12)
	for i := range 1 + w.random.IntN(2) {
		w.targets = append(w.targets, w.newTarget(fmt.Sprint("target", i)))
	}
	return w
}

func (w *world) newTarget(name string) *modelTarget {
	m := &modelTarget{world: w, name: name, busy: map[string]bool{}, poison: map[string]poison{}}
	m.policy = dispatch.Policy{
		PerCall: w.random.IntN(5) > 0, Concurrency: 1 + w.random.IntN(5), MaxAge: 2 * time.Hour,
		InitialDelay: time.Second, MaxDelay: time.Minute,
	}
	if w.random.IntN(3) == 0 {
		m.policy.MaxAttempts = int32(1 + w.random.IntN(5))
	}
	if w.random.IntN(4) == 0 {
		m.policy.RateLimit, m.policy.Burst = 5, 2
	}
	if w.random.IntN(3) == 0 {
		m.policy.MaxAge = time.Duration(1+w.random.IntN(30)) * time.Minute
	}
	if w.random.IntN(2) == 0 {
		for kind := w.newPoison(); w.random.IntN(4) > 0; { // often several of one kind, sometimes also of others
			m.poison[w.lane()] = kind
			if w.random.IntN(4) == 0 {
				kind = w.newPoison()
			}
		}
	}
	if w.random.IntN(2) == 0 {
		m.slow = time.Duration(w.random.IntN(8_000)) * time.Millisecond
	}
	if w.random.IntN(3) == 0 {
		m.flaky = w.random.IntN(60)
	}
	for start := time.Now(); w.random.IntN(2) == 0; {
		start = start.Add(time.Duration(w.random.IntN(600)) * time.Second)
		end := start.Add(time.Duration(w.random.IntN(1_800)) * time.Second)
		m.outages = append(m.outages, outage{start, end})
		start = end
	}
	_, err := w.journal.OpenCursor(name)
	require.NoError(w.t, err)
	return m
}

func (w *world) lane() string { return fmt.Sprint("call", w.random.IntN(w.lanes)) }

// start starts a process that delivers.
func (m *modelTarget) start() {
	h := &handle{store: m.journal}
	ctx, stop := context.WithCancel(context.Background())
	attempts, abandon := context.WithCancel(context.Background())
	done := make(chan error, 1)
	d := dispatch.New(m.name, h, slog.New(slog.DiscardHandler), m.policy, m.attempt)
	go func() { done <- d.Run(ctx, attempts) }()
	m.running = d
	m.starts = append(m.starts, time.Now())
	m.end = func(crash bool) {
		if crash {
			h.mu.Lock()
			h.dead = true
			h.mu.Unlock()
			m.crashed = true
			abandon()
		}
		stop()
		if err := <-done; !crash {
			require.NoError(m.t, err)
		}
		abandon()
	}
}

func (m *modelTarget) isDown(at time.Time) bool {
	return slices.ContainsFunc(m.outages, func(o outage) bool { return !at.Before(o.from) && at.Before(o.to) })
}

// attempt is what the target makes of a request.
func (m *modelTarget) attempt(ctx context.Context, r journal.Record) dispatch.Outcome {
	m.mu.Lock()
	one := attempt{seq: r.Seq, lane: r.Lane, at: time.Now(), replay: r.Replay != "", down: m.isDown(time.Now())}
	assert.False(m.t, m.policy.PerCall && m.busy[r.Lane], "two attempts at once within %s", r.Lane)
	m.busy[r.Lane] = true
	m.inFlight++
	assert.LessOrEqual(m.t, m.inFlight, 5)
	delay, lucky := time.Duration(0), m.random.IntN(100) >= m.flaky
	if m.slow > 0 {
		delay = time.Duration(m.random.IntN(int(m.slow)))
	}
	m.mu.Unlock()
	outcome := delivered
	switch {
	case one.down:
		outcome = dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: "connection refused"}
	case m.poison[r.Lane].outcome.Result != dispatch.Delivered:
		outcome, delay = m.poison[r.Lane].outcome, max(delay, m.poison[r.Lane].takes)
	case !lucky:
		outcome = dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500 from the target"}
	}
	if delay > 0 && !one.down {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			if outcome.Result == dispatch.Delivered && m.random.IntN(2) == 0 { // it was cut off before the target had it
				outcome = dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: "cut off"}
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy[r.Lane] = false
	m.inFlight--
	one.delivered, one.ended = outcome.Result == dispatch.Delivered, time.Now()
	if m.tries = append(m.tries, one); len(m.tries) > 50_000 {
		panic("a storm of attempts") // virtual time would stand still for ever
	}
	return outcome
}

// play lets events come and faults happen, then waits until nothing is owed, and judges.
func (w *world) play() {
	for _, m := range w.targets {
		m.start()
	}
	for n := range w.events {
		time.Sleep(time.Duration(w.random.IntN(20_000)) * time.Millisecond)
		lane := w.lane()
		_, err := w.journal.Append(context.Background(), journal.Record{
			ID: fmt.Sprint(n), Lane: lane, Type: event.CallEnded, Request: event.Request{ReceivedAt: time.Now()},
		}, nil)
		require.NoError(w.t, err)
		for _, m := range w.targets {
			m.happen()
		}
	}
	for _, m := range w.targets {
		m.settle()
		m.judge()
	}
}

// happen is what befalls the process between two events.
func (m *modelTarget) happen() {
	switch m.random.IntN(25) {
	case 0:
		m.end(false)
		m.start()
	case 1:
		m.end(true)
		m.start()
	case 2:
		m.policy.Concurrency = 1 + m.random.IntN(5)
		m.running.Configure(m.policy, m.attempt)
	case 3:
		last := m.journal.State().LastSeq
		var seqs journal.Ranges
		for range 1 + m.random.IntN(4) {
			seqs.Add(1 + uint64(m.random.IntN(int(last))))
		}
		n, err := m.running.Replay(context.Background(), journal.ReplayRequest{ID: fmt.Sprint("replay", m.asked), Seqs: seqs, Rate: float64(m.random.IntN(3))})
		m.asked++
		require.NoError(m.t, err)
		m.replays += n
	case 4:
		_, _, err := m.running.CancelReplay(context.Background(), journal.ReplayRequest{ID: fmt.Sprint("replay", m.random.IntN(m.asked+1))})
		require.NoError(m.t, err)
	}
}

// settle waits until nothing is owed. The poisoned call is mended first, where only its age ends it.
func (m *modelTarget) settle() {
	for range 30 * 60 {
		synctest.Wait()
		if m.running.Status().Pending == 0 {
			break
		}
		time.Sleep(time.Minute)
	}
	require.Zero(m.t, m.running.Status().Pending, "%s: everything comes to an end", m.name)
	replays, err := m.running.Replays(context.Background())
	require.NoError(m.t, err)
	for i := range replays {
		r := &replays[i]
		require.False(m.t, r.Running(), "%s has ended", r.ID)
		require.True(m.t, r.Canceled || r.Remaining == 0, "%s has sent all", r.ID)
	}
	m.end(false)
}

// judge holds what was tried against the promises.
func (m *modelTarget) judge() {
	letters, err := m.journal.DeadLetters(m.name, 0, 10_000)
	require.NoError(m.t, err)
	dead := map[uint64]bool{}
	for _, letter := range letters {
		dead[letter.Record.Seq] = true
		require.NotEmpty(m.t, letter.Reason)
	}
	first, times := map[uint64]int{}, map[uint64]int{}
	probes := make([]int, len(m.outages))
	for i, try := range m.tries {
		for j, o := range m.outages {
			if !try.at.Before(o.from) && try.at.Before(o.to) {
				probes[j]++
			}
		}
		if !try.delivered {
			continue
		}
		if _, seen := first[try.seq]; !seen && !try.replay {
			first[try.seq] = i
		}
		if !try.replay {
			times[try.seq]++
		}
	}
	byLane := map[string][]uint64{}
	for seq := uint64(1); seq <= m.journal.State().LastSeq; seq++ {
		_, delivered := first[seq]
		require.True(m.t, delivered || dead[seq] || m.revived(seq), "event %d is lost", seq)
		if !m.crashed {
			require.LessOrEqual(m.t, times[seq], 1, "event %d is repeated though nothing crashed", seq)
		}
		record, err := m.journal.Get(seq)
		require.NoError(m.t, err)
		byLane[record.Lane] = append(byLane[record.Lane], seq)
	}
	if m.policy.PerCall {
		for lane, seqs := range byLane {
			last := -1
			for _, seq := range seqs {
				if at, delivered := first[seq]; delivered {
					require.Greater(m.t, at, last, "%s: event %d overtook an earlier one", lane, seq)
					last = at
				}
			}
		}
	}
	m.judgeGood()
	if len(m.outages) == 0 && m.slow == 0 && m.flaky == 0 && m.policy.RateLimit == 0 && len(m.starts) == 1 && len(m.poison) <= 1 && m.policy.PerCall {
		m.judgeCalm()
	}
	for i, o := range m.outages {
		// five open the breaker, beside what is under way, and an answer from before the outage may close it
		// once; then probes go after 1, 2, 4, 8, 15, 15… seconds; a process that starts begins anew
		most := 20*(1+len(m.starts)) + int(o.to.Sub(o.from)/(15*time.Second))
		require.LessOrEqual(m.t, probes[i], most, "an outage of %s costs probes, not a storm", o.to.Sub(o.from))
	}
}

// poisoned reports whether the target cannot take the events of a lane.
func (m *modelTarget) poisoned(lane string) bool {
	_, is := m.poison[lane]
	return is
}

// judgeGood: an event of a lane that the target does take goes out within a bound, whatever becomes of other lanes: a
// probe of its own, and one for each event of a poisoned lane that is tried for the first time meanwhile, as nothing
// tells the two apart. The time while the target is down, or the process restarts, does not count.
func (m *modelTarget) judgeGood() {
	timeouts := slices.ContainsFunc(slices.Collect(maps.Values(m.poison)), poison.isTimeout)
	if m.slow > 0 || m.flaky > 0 || m.policy.RateLimit > 0 || timeouts && !m.policy.PerCall {
		return // more may come than the target takes; with order None each event of a poisoned lane holds a slot once
	}
	const oneProbe = 15*time.Second + timeout
	base := 2 * oneProbe
	if len(m.outages) > 0 { // after one it may have failed itself
		base += m.policy.MaxDelay + time.Duration(len(m.poison))*oneProbe
	}
	seen, free := map[uint64]bool{}, map[string]time.Time{}
	for i, try := range m.tries {
		if !m.poisoned(try.lane) && !try.replay && !try.down && !seen[try.seq] {
			seen[try.seq] = true
			from := m.receivedAt(try.seq)
			if m.policy.PerCall && free[try.lane].After(from) {
				from = free[try.lane]
			}
			for _, o := range slices.Concat(m.outages, m.restarts()) {
				if o.from.Before(try.at) && o.to.After(from) {
					from = o.to
				}
			}
			bound := base + time.Duration(m.firstPoisoned(i, from))*oneProbe
			require.LessOrEqual(m.t, try.at.Sub(from), bound, "event %d of %s waits, though its call is well", try.seq, try.lane)
		}
		free[try.lane] = try.ended
	}
}

func (m *modelTarget) receivedAt(seq uint64) time.Time {
	record, err := m.journal.Get(seq)
	require.NoError(m.t, err)
	return record.Request.ReceivedAt
}

// firstPoisoned counts the attempts before one, since a time, that were the first of their process at an event of a
// poisoned lane.
func (m *modelTarget) firstPoisoned(before int, since time.Time) (n int) {
	for i, try := range m.tries[:before] {
		if !m.poisoned(try.lane) || try.ended.Before(since) {
			continue
		}
		known := slices.ContainsFunc(m.tries[:i], func(earlier attempt) bool {
			return earlier.seq == try.seq && !slices.ContainsFunc(m.starts, func(start time.Time) bool {
				return start.After(earlier.at) && !start.After(try.at)
			})
		})
		if !known {
			n++
		}
	}
	return n
}

// restarts are the times while the process started again.
func (m *modelTarget) restarts() (all []outage) {
	for _, at := range m.starts[1:] {
		all = append(all, outage{at.Add(-timeout), at})
	}
	return all
}

// judgeCalm: where nothing but one poisoned call goes wrong, no other call waits for it, unless its attempts hold the
// only slot, and its own attempts keep their schedule.
func (m *modelTarget) judgeCalm() {
	last := map[uint64]time.Time{}
	var takes time.Duration
	for _, p := range m.poison {
		takes = p.takes
	}
	for _, try := range m.tries {
		record, err := m.journal.Get(try.seq)
		require.NoError(m.t, err)
		before, tried := last[try.seq]
		last[try.seq] = try.at
		switch {
		case try.replay:
		case !tried && !m.poisoned(try.lane):
			require.WithinDuration(m.t, record.Request.ReceivedAt, try.at, takes+time.Second, "event %d waits, though its call is well", try.seq)
		case tried:
			require.LessOrEqual(m.t, try.at.Sub(before), m.policy.MaxDelay+takes+time.Second, "event %d is not tried again in time", try.seq)
		}
	}
}

// revived is whether an event was given up and then delivered by a replay.
func (m *modelTarget) revived(seq uint64) bool {
	return slices.ContainsFunc(m.tries, func(a attempt) bool { return a.seq == seq && a.replay && a.delivered })
}
