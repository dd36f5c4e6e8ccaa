package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

const (
	maxQueued      = 1_000_000              // events a target may have in lanes; then the reader waits
	readBatch      = 1_000                  // events read from the journal at once
	flushInterval  = 200 * time.Millisecond // between two writes of a cursor
	maxConcurrency = 256                    // attempts under way at once, whatever the policy says
	maxUnflushed   = 100                    // dead letters that wait for such a write
	maxUnlogged    = 2_000                  // attempts that wait for such a write; when it fails, the oldest go
	maxTurns       = 16                     // of settling and starting, after which all else is looked at
	readPause      = time.Second            // after a reading that failed
	failingAfter   = 5                      // attempts without a success that make a target unhealthy
)

// work is the state of a running dispatcher. Its goroutine alone touches it.
type work struct {
	*Dispatcher
	complained time.Time // when it was logged last that the cursor cannot be written
	progress   *progress
	lanes      map[string]*lane
	ready      readyLanes     // lanes whose head may be tried
	waiting    waiting        // lanes whose head must wait, soonest first
	queued     int            // events in lanes
	replayed   int            // of these, the ones that are replayed
	resumed    chan resumed   // events of replays that an earlier process took
	toResume   int64          // how many of them are not in lanes yet
	resuming   sync.WaitGroup // of the goroutine that looks them up
	taking     map[*taking]bool
	inFlight   int
	read       uint64    // all up to it are in lanes or done
	more       bool      // the journal may hold more than was read
	readAgain  time.Time // after a failed reading, or zero
	jobs       chan job
	results    chan result
	workers    int // goroutines that take jobs: as many as there ever were attempts under way
	working    sync.WaitGroup
	breaker    breaker
	slots      slots
	probing    struct{ fresh, failed bool } // a lane that has not failed, and one that has, is tried as a probe
	limiter    *rate.Limiter
	probed     time.Time // when the last probe that failed began; zero: events that were too old then are given up
	suspended  time.Time // since when; zero: it is not
	clock      time.Time // when it was last looked at
	failures   int       // attempts since the last success
	lastErr    string
	flushed    time.Time
	dead       []journal.DeadLetter // not yet written
	revived    []uint64             // dead letters that were delivered after all, not yet forgotten
	attempts   []journal.Attempt    // not yet in the delivery log
	saving     *saving              // what is being written, or nil
	evicted    int64                // dead letters, as the journal said last
	first      uint64               // events below it are not stored any more, and were counted
	lost       int64                // events that somebody deleted before the target had them, not yet written
	rate       meter                // of deliveries

	now       Policy
	try       Attempt
	configNew <-chan struct{}
}

// lane is a run of events that go out one after the other.
type lane struct {
	key      string
	seqs     []uint64  // waiting, the head first
	live     int       // how many of them are not replayed
	failures int       // attempts of the head that failed, for the delay
	answered int32     // attempts of the head that the target answered
	last     Outcome   // of the head's last attempt
	since    time.Time // from when the head's age runs; zero: it was not looked up
	due      time.Time
	blamed   bool // its head failed because the target was unavailable

	notBefore time.Time // the target asked that it is not tried before
}

type result struct {
	lane    *lane
	probe   bool
	record  journal.Record
	outcome Outcome
	began   time.Time
	took    time.Duration
}

func (w *work) configure() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now, w.try, w.configNew = w.policy, w.attempt, w.changed
	w.suspend(time.Now())
	w.slots.resize(min(w.now.Concurrency, maxConcurrency))
	w.limiter = nil
	if w.now.RateLimit > 0 {
		w.limiter = rate.NewLimiter(w.now.RateLimit, max(w.now.Burst, 1))
	}
}

func (w *work) run(ctx, attempts context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	appended := w.journal.Appended() // before reading, so that nothing slips in between
	w.more = true
	for turns := 1; ctx.Err() == nil; turns++ {
		w.watchClock(time.Now())
		w.fill()
		w.countDeleted()
		w.expire()
		w.start(attempts)
		if w.settleMore() && turns%maxTurns != 0 { // what else there is to see to can wait a little
			w.flushWhenDue()
			continue
		}
		w.report()
		timer.Reset(time.Until(w.wake()))
		select {
		case r := <-w.results:
			w.settle(r)
		case <-w.saving.ended():
			_ = w.saved() // it has been said
		case <-appended:
			appended, w.more = w.journal.Appended(), true
		case <-timer.C:
		case <-w.configNew:
			w.configure()
		case q := <-w.questions:
			w.answer(q)
		case a := <-w.asks:
			a.do(w)
			close(a.done)
		case batch := <-w.resumed:
			w.resume(batch)
		case <-ctx.Done():
		}
		w.flushWhenDue()
	}
	for w.inFlight > 0 {
		w.settle(<-w.results)
	}
	close(w.jobs)
	w.working.Wait()
	w.endAge(time.Now())
	w.report()
}

// settleMore takes in what has been tried meanwhile, and says whether there was something.
func (w *work) settleMore() (more bool) {
	for range w.inFlight {
		select {
		case r := <-w.results:
			w.settle(r)
			more = true
		default:
			return more
		}
	}
	return more
}

// fill reads events from the journal into lanes, while there is room for them.
func (w *work) fill() {
	if !w.readAgain.IsZero() && !time.Now().Before(w.readAgain) {
		w.more, w.readAgain = true, time.Time{}
	}
	for w.mayRead() {
		entries, err := w.journal.Entries(w.read, readBatch)
		if err != nil {
			w.lastErr = err.Error()
			w.log.Error("cannot read the journal", "error", err)
			w.more, w.readAgain = false, time.Now().Add(readPause)
			return
		}
		w.more, w.readAgain = len(entries) == readBatch, time.Time{}
		for _, entry := range entries {
			w.progress.skip(w.read+1, entry.Seq-1) // not kept any more, so done
			w.read = entry.Seq
			if !w.progress.has(entry.Seq) {
				w.enqueue(entry)
			}
		}
	}
}

// mayRead is whether there is more in the journal, and room for it in lanes.
func (w *work) mayRead() bool {
	return w.more && w.queued-w.replayed < maxQueued && len(w.ready.live) < readBatch
}

func (w *work) enqueue(entry journal.Entry) {
	key := entry.Lane
	if key == "" || !w.now.PerCall {
		key = fmt.Sprintf("event:%d", entry.Seq)
	}
	l := w.lanes[key]
	if l == nil {
		l = &lane{key: key}
		w.lanes[key] = l
	}
	l.seqs = append(l.seqs, entry.Seq)
	w.queued++
	if w.progress.has(entry.Seq) {
		w.replayed++
	} else if l.live++; l.live == 1 && len(l.seqs) > 1 {
		w.prefer(l)
	}
	if len(l.seqs) == 1 {
		l.answered = w.progress.attempts[entry.Seq]
		w.push(l)
	}
}

// start begins as many attempts as may be under way.
func (w *work) start(attempts context.Context) {
	for l := w.waiting.due(time.Now()); l != nil; l = w.waiting.due(time.Now()) {
		w.push(l)
	}
	for {
		now := time.Now()
		whose, at := w.nextTurn(now)
		if whose == noTurn || at.After(now) {
			return
		}
		if w.limiter != nil && !w.limiter.AllowN(now, 1) {
			return
		}
		l := w.takeLane(whose, now)
		if w.canceled(l.seqs[0]) {
			w.next(l)
			continue
		}
		w.begin(attempts, l, now)
	}
}

// begin begins an attempt at the head of a lane.
func (w *work) begin(attempts context.Context, l *lane, now time.Time) {
	next := job{lane: l, seq: l.seqs[0], try: w.try, probe: w.breaker.open, maxAge: w.now.MaxAge, resumed: w.progress.count.Since}
	if next.probe {
		w.setProbing(l, true)
	}
	if r := w.progress.replay(next.seq); r != nil {
		next.replay = r.ID
		w.ready.of(r).started(now)
	}
	w.slots.began(now, l)
	w.inFlight++
	if w.workers < w.inFlight {
		w.workers++
		w.working.Go(func() { w.work(attempts) })
	}
	w.jobs <- next // there is room for all that may be under way, also among the results
}

func (w *work) setProbing(l *lane, is bool) {
	if l.failures > 0 {
		w.probing.failed = is
	} else {
		w.probing.fresh = is
	}
}

// work makes attempts, one after the other, for as long as there are any.
func (w *work) work(attempts context.Context) {
	for j := range w.jobs {
		began := time.Now()
		record, outcome := w.once(attempts, j)
		outcome.cutOff = attempts.Err() != nil
		w.results <- result{lane: j.lane, probe: j.probe, record: record, outcome: outcome, began: began, took: time.Since(began)}
	}
}

// wake is when there is something to do though nothing happens.
func (w *work) wake() time.Time {
	now := time.Now()
	wake := now.Add(time.Minute)
	earliest := func(t time.Time) {
		if t.Before(wake) {
			wake = t
		}
	}
	if len(w.waiting) > 0 {
		earliest(w.waiting[0].due)
	}
	if whose, at := w.nextTurn(now); whose != noTurn {
		earliest(at)
	}
	if !w.readAgain.IsZero() {
		earliest(w.readAgain)
	}
	if w.progress.dirty && w.saving == nil {
		earliest(w.flushed.Add(flushInterval))
	}
	if w.mayRead() {
		earliest(now)
	}
	return wake
}

// job is one attempt to make.
type job struct {
	lane    *lane
	probe   bool // of a target that is down
	seq     uint64
	try     Attempt
	maxAge  time.Duration
	resumed time.Time // since when this webhook has the journal; zero: since it was made
	replay  string    // its id, or empty
}

// once makes one attempt.
func (w *work) once(ctx context.Context, j job) (journal.Record, Outcome) {
	var damaged *journal.DamagedError
	record, err := w.record(j.seq, j.replay != "")
	record.Replay = j.replay
	at := record.Request.ReceivedAt
	switch {
	case errors.Is(err, journal.ErrNotFound):
		return journal.Record{Seq: j.seq, Replay: j.replay}, Outcome{Result: Unwanted, gone: true}
	case errors.As(err, &damaged) && damaged.Seq == j.seq: // it will not be read another time either
		return journal.Record{Seq: j.seq, Replay: j.replay}, Outcome{Result: Refused, Reason: damaged.Error()}
	case err != nil:
		return journal.Record{Seq: j.seq}, Outcome{Result: Retry, Reason: err.Error()}
	case j.replay == "" && at.Before(j.resumed) && time.Since(at) >= j.maxAge:
		return record, Outcome{Result: Refused, Reason: tooOldReason(j.maxAge, "") + ", and received for an earlier webhook of this name"}
	}
	return record, j.try(ctx, record)
}

// settle takes in what came of an attempt.
func (w *work) settle(r result) {
	w.inFlight--
	l, outcome := r.lane, r.outcome
	w.slots.ended(time.Now(), l, outcome)
	if r.probe {
		w.setProbing(l, false)
	}
	if outcome.Result != Delivered && outcome.Reason != "" {
		w.lastErr = outcome.Reason
	}
	w.judge(r)
	switch outcome.Result {
	case Delivered:
		now := r.began.Add(r.took)
		w.progress.delivered(now)
		w.rate.count(now)
		w.note(r, journal.Delivered)
		if r.record.Replay != "" { // it may have been a dead letter
			w.revived = append(w.revived, r.record.Seq)
		}
		w.next(l)
	case Unwanted:
		if outcome.gone {
			w.progress.failed(l.seqs[0])
			if r.record.Replay == "" && l.seqs[0] >= w.first { // else it was counted
				w.lost++
			}
		}
		w.next(l)
	case Refused:
		if !outcome.Answered && l.last.Reason != "" { // too old: what it waited for says more
			outcome.Reason += "; the last attempt: " + l.last.Reason
			r.outcome.Status = l.last.Status
		}
		w.giveUp(r, outcome.Reason)
	case Retry:
		w.again(r)
	}
}

// judge tells the breaker, and counts towards the target's health.
func (w *work) judge(r result) {
	outcome, now := r.outcome, time.Now()
	switch {
	case outcome.Unavailable:
		w.failures++
		if r.probe {
			w.probed = r.began
		}
		if opened := w.breaker.failed(now, r.lane.key, r.probe); opened {
			w.log.Warn("target is down, pausing", "reason", outcome.Reason)
		}
	case outcome.Answered:
		if outcome.Result == Delivered {
			w.failures = 0
		} else {
			w.failures++
		}
		if closed := w.breaker.answered(now); closed {
			w.log.Info("target answers again")
			w.slots.restart()
			w.release()
		}
	}
}

// release has the lanes tried again that wait because the target was unavailable, but for those that it told to wait.
func (w *work) release() {
	now := time.Now()
	for _, l := range w.waiting.blamed() {
		if l.notBefore.After(now) {
			l.due = l.notBefore
			w.waiting.add(l)
			continue
		}
		w.push(l)
	}
}

// skipHead moves a lane on after its head was given up. Where that was because the target is not there, the lane is
// still one that failed, and backs off from where it was.
func (w *work) skipHead(l *lane, unavailable bool) {
	if !unavailable || len(l.seqs) == 1 {
		w.next(l)
		return
	}
	w.leave(l, l.seqs[0])
	l.seqs = l.seqs[1:]
	l.answered, l.last, l.notBefore, l.since = w.progress.attempts[l.seqs[0]], Outcome{}, time.Time{}, time.Time{}
	w.push(l)
}

// next moves a lane on after its head is done.
func (w *work) next(l *lane) {
	w.leave(l, l.seqs[0])
	l.seqs = l.seqs[1:]
	l.failures, l.answered, l.blamed, l.last, l.due, l.notBefore, l.since = 0, 0, false, Outcome{}, time.Time{}, time.Time{}, time.Time{}
	if len(l.seqs) == 0 {
		delete(w.lanes, l.key)
		return
	}
	l.answered = w.progress.attempts[l.seqs[0]]
	w.push(l)
}

func (w *work) giveUp(r result, reason string) {
	answered := r.lane.answered
	if r.outcome.Answered {
		answered++
	}
	w.dead = append(w.dead, journal.DeadLetter{
		Record: r.record, Reason: reason, Attempts: answered, Status: r.outcome.Status, Reply: r.outcome.Reply, Time: time.Now().UTC(),
	})
	r.outcome.Reason = reason
	w.note(r, journal.DeadLettered)
	w.log.Warn("event became a dead letter", "id", r.record.ID, "type", r.record.Type, "reason", reason)
	w.progress.deadLettered(r.record.Seq)
	w.skipHead(r.lane, r.outcome.Unavailable || !r.outcome.Answered && r.lane.blamed)
}

// again lets the head of a lane wait for its next attempt, or gives it up.
func (w *work) again(r result) {
	l := r.lane
	if w.canceled(l.seqs[0]) {
		w.note(r, journal.Retried)
		w.next(l)
		return
	}
	l.failures++
	l.last = r.outcome
	l.last.Reply = "" // memory for as long as it waits
	l.blamed = r.outcome.Unavailable
	l.since = w.since(&r.record)
	if reason := w.enough(r); reason != "" {
		w.giveUp(r, reason)
		return
	}
	if r.outcome.Answered {
		l.answered++
		w.progress.attempted(l.seqs[0], l.answered)
	}
	now := time.Now()
	l.due, l.notBefore = now.Add(backoff(w.now, l.failures)), time.Time{}
	if r.outcome.RetryAfter > 0 {
		l.due = now.Add(min(r.outcome.RetryAfter, w.now.MaxDelay))
		l.notBefore = l.due
	}
	l.due = w.notAfter(&r.record, l.due, now)
	w.waiting.add(l)
	w.note(r, journal.Retried)
}

// enough says why there is no attempt after one that failed; empty: there is.
func (w *work) enough(r result) string {
	switch {
	case r.outcome.Answered && w.now.MaxAttempts > 0 && r.lane.answered+1 >= w.now.MaxAttempts:
		return fmt.Sprintf("after %d attempts: %s", w.now.MaxAttempts, r.outcome.Reason)
	case !r.outcome.cutOff && w.tooOld(&r.record, r.began):
		return tooOldReason(w.now.MaxAge, r.outcome.Reason)
	default:
		return ""
	}
}

func (w *work) answer(q *question) {
	for i, seq := range q.seqs {
		q.done[i] = w.progress.has(seq) && w.progress.replay(seq) == nil
	}
	unlogged := w.attempts
	if w.saving != nil {
		unlogged = slices.Concat(w.saving.Attempts, w.attempts)
	}
	for _, a := range unlogged {
		if q.about[a.Seq] {
			a.Target = w.name
			q.unlogged = append(q.unlogged, a)
		}
	}
	close(q.answered)
}

// backoff is exponential with full jitter: drawn between 0 and a bound that doubles.
func backoff(policy Policy, failures int) time.Duration {
	bound := policy.MaxDelay
	if shift := failures - 1; shift < 32 {
		if d := policy.InitialDelay << shift; d > 0 && d < bound {
			bound = d
		}
	}
	return time.Duration(rand.Int64N(int64(bound) + 1))
}

// report makes the status that others see.
func (w *work) report() {
	s := Status{
		Name: w.name, Pending: int64(w.queued) + w.toResume - w.progress.doneAfter(w.read),
		Floor: w.progress.floor, Delivered: w.progress.count.Delivered, DeadLettered: w.progress.count.DeadLettered, Evicted: w.evicted,
		LastDelivery: w.progress.count.LastDelivery, BreakerOpen: w.breaker.open,
		Healthy: true, Known: true, PerMinute: w.rate.perMinute(time.Now()),
	}
	switch {
	case w.now.Suspended:
		s.Healthy, s.Suspended, s.LastError = false, true, "suspended: its events wait until suspend is false"
	case w.now.Problem != "":
		s.Healthy, s.LastError = false, w.now.Problem
	case w.queued-w.replayed >= maxQueued:
		s.Healthy, s.LastError = false, fmt.Sprintf("%d events wait, more are not read before some are delivered: %s", w.queued-w.replayed, w.lastErr)
	case w.breaker.open || w.failures >= failingAfter:
		s.Healthy, s.LastError = false, w.lastErr
	case w.now.Warning != "":
		s.Healthy, s.LastError = false, w.now.Warning
	}
	w.mu.Lock()
	first := !w.status.Known
	w.status, w.Dispatcher.read = s, w.read
	w.mu.Unlock()
	if first {
		close(w.known)
	}
}
