package dispatch

import (
	"fmt"
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// How old an event is, and when it is given up for its age:
//
//   - An event's age runs from when it was received, one of a replay from when that was asked for. It does not run while
//     nothing could be attempted: while the target is suspended, while no dispatcher runs (the webhook is disabled, the
//     node is down), and across a jump of the clock.
//   - An event is given up when it is older than maxAge and was attempted after that age, by this process; or when its
//     target is down, and a probe failed after that age. So what waited for a process that was away is attempted first.
//   - Only where the journal belonged to another webhook of the same name, events that it received for that one are
//     given up by their age alone, by the clock.

const (
	minPause   = 10 * time.Second // a shorter time without a dispatcher does not count
	maxPauses  = 32               // that are remembered
	maxExpired = maxUnflushed     // events that are given up without looking at anything else
)

// addPause returns the pauses with one more; those returned are not changed by a later call.
func addPause(pauses []journal.Pause, from, to time.Time) []journal.Pause {
	if to.Sub(from) < minPause {
		return pauses
	}
	all := append(slices.Clone(pauses), journal.Pause{From: from.UTC(), To: to.UTC()})
	return all[max(0, len(all)-maxPauses):]
}

// ageOf returns how old something is at a time that began at another one, without pauses. Pauses do not overlap.
func ageOf(since, at time.Time, pauses []journal.Pause) time.Duration {
	age := at.Sub(since)
	for _, p := range pauses {
		from, to := later(p.From, since), p.To
		if at.Before(to) {
			to = at
		}
		if to.After(from) {
			age -= to.Sub(from)
		}
	}
	return age
}

// resumeAge takes what the cursor says of the time before this process.
func (w *work) resumeAge(now time.Time) {
	c := &w.progress.count
	switch uid := w.now.Webhook; {
	case uid != "" && c.Webhook != "" && uid != c.Webhook:
		c.Webhook, c.Since, c.Pauses = uid, now.UTC(), nil
		w.progress.dirty = true
		return
	case uid != "" && c.Webhook == "":
		c.Webhook, w.progress.dirty = uid, true
	}
	if !c.Seen.IsZero() && now.Sub(c.Seen) >= minPause {
		c.Pauses = addPause(c.Pauses, c.Seen, now)
	}
}

// watchClock notes a pause for as long as the clock jumped forward since it was called last.
func (w *work) watchClock(now time.Time) {
	if !w.clock.IsZero() {
		if jump := now.Round(0).Sub(w.clock.Round(0)) - now.Sub(w.clock); jump >= minPause {
			w.log.Warn("the clock jumped forward: the events that wait do not count as older for it", "by", jump.Round(time.Second))
			w.pause(now.Round(0).Add(-jump), now)
		}
	}
	w.clock = now
}

func (w *work) pause(from, to time.Time) {
	w.progress.count.Pauses = addPause(w.progress.count.Pauses, from, to)
	w.progress.dirty = true
}

// suspend takes that the policy suspends the target, or does not any more.
func (w *work) suspend(now time.Time) {
	switch {
	case w.now.Suspended && w.suspended.IsZero():
		w.suspended = now
	case !w.now.Suspended && !w.suspended.IsZero():
		w.pause(w.suspended, now)
		w.suspended = time.Time{}
	}
}

// endAge notes in the cursor until when age ran, where an event waits.
func (w *work) endAge(now time.Time) {
	if !w.suspended.IsZero() {
		w.pause(w.suspended, now)
	}
	w.progress.dirty = w.progress.dirty || w.queued > 0
}

// since returns when the age of a record began to run; zero: it is not known.
func (w *work) since(r *journal.Record) time.Time {
	if r.Replay == "" {
		return r.Request.ReceivedAt
	}
	if replay := w.progress.replay(r.Seq); replay != nil {
		return replay.At
	}
	return time.Time{}
}

// tooOld reports whether a record was older than maxAge at a time.
func (w *work) tooOld(r *journal.Record, at time.Time) bool {
	since := w.since(r)
	return !since.IsZero() && ageOf(since, at, w.progress.count.Pauses) >= w.now.MaxAge
}

// notAfter returns when a record becomes too old, or a time if that is earlier.
func (w *work) notAfter(r *journal.Record, at, now time.Time) time.Time {
	since := w.since(r)
	if since.IsZero() {
		return at
	}
	if expiry := now.Add(w.now.MaxAge - ageOf(since, now, w.progress.count.Pauses)); expiry.Before(at) {
		return later(expiry, now)
	}
	return at
}

func tooOldReason(maxAge time.Duration, last string) string {
	reason := fmt.Sprintf("older than retry.maxAge (%s)", maxAge)
	if last != "" {
		reason += "; the last attempt: " + last
	}
	return reason
}

// expire gives up events of a target that is down that were too old at its last probe, as many as may be at once.
func (w *work) expire() {
	if w.probed.IsZero() || !w.breaker.open || w.now.Suspended {
		return
	}
	for range maxExpired {
		if !w.expireOne() {
			w.probed = time.Time{} // until the next probe
			return
		}
	}
}

// expireOne gives up one event, if one is too old: of the lanes that have waited longest, and of those that failed.
func (w *work) expireOne() bool {
	if w.expireFirst(&w.ready.live) {
		return true
	}
	for _, replay := range w.ready.replays {
		if w.expireFirst(&replay.lanes) {
			return true
		}
	}
	for i, l := range w.ready.failing {
		if w.isExpired(l) {
			w.ready.failing = slices.Delete(w.ready.failing, i, i+1)
			w.expireHead(l)
			return true
		}
	}
	for _, l := range w.waiting {
		if w.isExpired(l) {
			w.waiting.remove(l)
			w.expireHead(l)
			return true
		}
	}
	return false
}

// expireFirst gives up the head of the first lane of a queue, if it is too old. The lane stays the first.
func (w *work) expireFirst(q *queue) bool {
	if len(*q) == 0 || !w.isExpired((*q)[0]) {
		return false
	}
	l := q.pop()
	w.expireHead(l)
	if last := len(*q) - 1; last >= 0 && (*q)[last] == l {
		q.popNewest()
		*q = slices.Insert(*q, 0, l)
	}
	return true
}

// isExpired reports whether the head of a lane was too old at the last probe. One that cannot be read is not.
func (w *work) isExpired(l *lane) bool {
	if l.since.IsZero() {
		record, err := w.headOf(l)
		if err != nil {
			return false
		}
		l.since = w.since(&record)
	}
	return !l.since.IsZero() && ageOf(l.since, w.probed, w.progress.count.Pauses) >= w.now.MaxAge
}

// expireHead gives up the head of a lane that is in no queue.
func (w *work) expireHead(l *lane) {
	record, err := w.headOf(l)
	if err != nil {
		w.push(l) // an attempt will tell
		return
	}
	reason := l.last.Reason
	if reason == "" {
		reason = w.lastErr // of the probe
	}
	w.giveUp(result{lane: l, record: record, began: time.Now(), outcome: Outcome{Result: Refused, Status: l.last.Status}}, tooOldReason(w.now.MaxAge, reason))
}

// headOf returns the record of a lane's head.
func (w *work) headOf(l *lane) (journal.Record, error) {
	replay := w.progress.replay(l.seqs[0])
	record, err := w.record(l.seqs[0], replay != nil)
	if replay != nil {
		record.Replay = replay.ID
	}
	return record, err
}
