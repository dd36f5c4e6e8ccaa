// Package journal keeps events safe: an event is durable before the PBX gets its answer, and stays
// until every target has it.
//
// It stores requests as they came, with the identity that was decoded once, and per target a cursor
// and dead letters. It must not know what an event means, nor how it is delivered.
package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// ErrFull says that undelivered events leave no room, in the journal or on its disk.
var ErrFull = errors.New("the journal is full of undelivered events")

// ErrNoSpace says that the disk of the journal has too little room left.
var ErrNoSpace = errors.New("the journal's disk is full")

// ErrNotFound says that an event is not, or no longer, kept.
var ErrNotFound = errors.New("no such event in the journal")

// ErrClosed says that the journal was closed.
var ErrClosed = errors.New("the journal is closed")

// DamagedError says that what is kept is not what was written.
type DamagedError struct {
	File string
	Seq  uint64 // 0 when it is not one event that is damaged
	Err  error
}

func (e *DamagedError) Error() string {
	if e.Seq == 0 {
		return fmt.Sprintf("the journal %s is damaged: %v", e.File, e.Err)
	}
	return fmt.Sprintf("the journal %s is damaged at event %d: %v", e.File, e.Seq, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Record is a kept event.
type Record struct {
	Seq     uint64 // its place in the journal, from 1; set by Append
	ID      string
	Type    event.Type // as decoded when it arrived
	Name    string     // the provider's own name of the event; empty where it could not be decoded
	Lane    string     // events of one lane are delivered in order; empty: the event stands alone
	Request event.Request
	// Trace is the traceparent of the span that took the request, where there was one.
	Trace string
	// Decoded is what the request became when it arrived. It is remembered with the latest events and not
	// kept: where it is nil the request must be decoded.
	Decoded *event.Decoded
	// Replay is the id of the replay that it goes out for, or empty. It is not kept with the event.
	Replay string
	// OtherVersion is the version in which it came, where that is not the one expected. It is counted
	// and not kept with the event.
	OtherVersion string
}

// size is how many bytes its request has, about.
func (r *Record) size() int { return len(r.Request.Body) + len(r.Request.Query) }

// Entry is what dispatch needs to know of every kept event.
type Entry struct {
	Seq  uint64
	Lane string
}

// Head is what is known of a kept event without its request.
type Head struct {
	Seq        uint64
	ID         string
	Type       event.Type
	Lane       string
	ReceivedAt time.Time
}

// Stored is a kept event as it lies in the journal.
type Stored struct {
	Head
	// Data has, among all else, the request's path, query, header values and body as they came.
	Data   []byte
	shared bool // it was written before its sequence number was known
}

// Record is the event.
func (s Stored) Record() (Record, error) {
	if !s.shared {
		return decode(s.Seq, s.Data)
	}
	r, err := decode(0, s.Data)
	r.Seq = s.Seq
	return r, err
}

// RepeatKey is equal for two requests that are one event.
type RepeatKey [16]byte

// Receipt is what became of an event that was to be kept.
type Receipt struct {
	Seq    uint64
	ID     string
	Type   event.Type
	Repeat bool // it was kept before; ID and Type are those of the first one
}

// Cursor says which events a target is done with: delivered, not wanted, or dead letters.
type Cursor struct {
	Floor        uint64           `json:"floor"`              // all up to it are done
	Done         Ranges           `json:"done,omitempty"`     // these above it too
	Attempts     map[uint64]int32 `json:"attempts,omitempty"` // answered attempts of events in retry
	Replays      []Replay         `json:"replays,omitempty"`  // events that are done and go out again
	Delivered    int64            `json:"delivered"`
	DeadLettered int64            `json:"deadLettered"`
	LastDelivery time.Time        `json:"lastDelivery,omitzero"`
	RemovedAt    time.Time        `json:"removedAt,omitzero"` // since when no target has it
	Seen         time.Time        `json:"seen,omitzero"`      // when the dispatcher wrote it
	Pauses       []Pause          `json:"pauses,omitempty"`   // while which the age of events did not run, the oldest first
	Webhook      string           `json:"webhook,omitempty"`  // UID of the object that the journal serves; empty: it has none
	Evicted      int64            `json:"evicted,omitempty"`  // dead letters that were deleted for their number or age
	Since        time.Time        `json:"since,omitzero"`     // when it began to serve that one, where it served another one before
}

// Pause is a time while which nothing could be attempted.
type Pause struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Replay is a replay request that a target's dispatcher has taken: events that go to the target again. It is kept
// for a while after it ended, so that it can be listed.
type Replay struct {
	ID        string    `json:"id"`
	At        time.Time `json:"at"`              // when it was asked for
	By        string    `json:"by,omitempty"`    // who asked, as they said
	About     string    `json:"about,omitempty"` // which events, for people
	Rate      float64   `json:"rate,omitempty"`  // attempts a second to the target; 0: no bound
	Share     float64   `json:"share,omitempty"` // of the rate, that this partition has; 0: all
	Seqs      Ranges    `json:"seqs"`            // that are still to go out
	Total     int64     `json:"total,omitempty"`
	Remaining int64     `json:"remaining,omitempty"` // as many as Seqs has; of a canceled one, those that were not sent
	Failed    int64     `json:"failed,omitempty"`    // became dead letters, or are no longer stored
	Ended     time.Time `json:"ended,omitzero"`      // zero while it is running
	Canceled  bool      `json:"canceled,omitempty"`
}

// Running reports whether events of the replay are still to go out.
func (r *Replay) Running() bool { return r.Ended.IsZero() }

// ReplayRequest asks that events go to a target again, or that a replay is canceled.
type ReplayRequest struct {
	Target string
	ID     string
	At     time.Time `json:",omitzero"`
	By     string    `json:",omitempty"`
	About  string    `json:",omitempty"`
	Rate   float64   `json:",omitempty"`
	Share  float64   `json:",omitempty"`
	Seqs   Ranges
	// GivenUpTo is set where dead letters are meant: events whose dead letter is gone, or newer, are left out, so
	// that the same request made twice sends nothing twice.
	GivenUpTo time.Time `json:",omitzero"`
	Cancel    bool      `json:",omitempty"`
}

// Has is whether the target is done with an event, and does not get it again.
func (c *Cursor) Has(seq uint64) bool {
	for i := range c.Replays {
		if c.Replays[i].Seqs.Has(seq) {
			return false
		}
	}
	return seq <= c.Floor || c.Done.Has(seq)
}

// Replay returns the replay that a request asks for, of which nothing has gone out.
func (r *ReplayRequest) Replay() Replay {
	n := r.Seqs.Len()
	return Replay{ID: r.ID, At: r.At, By: r.By, About: r.About, Rate: r.Rate, Share: r.Share, Seqs: r.Seqs, Total: n, Remaining: n}
}

// DeadLetter is an event that was given up for a target, with the request, so that it outlives the
// event's place in the journal.
type DeadLetter struct {
	Record   Record
	Reason   string
	Attempts int32
	Status   int    // the last HTTP status; 0 when there was no answer
	Reply    string // the beginning of the last answer's body; may show what the event holds
	Time     time.Time
}

// Attempt is a line of the delivery log: a target was asked to take an event, and what it said.
type Attempt struct {
	Seq      uint64 // of the event
	Target   string
	Time     time.Time // when it began
	Duration time.Duration
	Result   Result
	Status   int       // HTTP status; 0 when there was no answer
	Reason   string    // why it was not delivered, for people
	Reply    string    // the beginning of the answer's body; may show what the event holds
	Next     time.Time // when it is tried again; zero: not, or when the target answers others again
	Replay   string    // the replay that it was for, or empty
}

// Result is what an attempt came to.
type Result string

// The results of attempts.
const (
	Delivered    Result = "delivered"
	Retried      Result = "retried"      // it is tried again
	DeadLettered Result = "deadLettered" // it was given up
)

// Progress is what a target's dispatcher keeps in one go.
type Progress struct {
	Cursor   Cursor
	Dead     []DeadLetter // new ones
	Revived  []uint64     // dead letters that were delivered after all
	Attempts []Attempt    // for the delivery log
	Lost     int64        // events that somebody deleted before the target had them, since the last Progress
}

// Removed is a target that is no more, whose cursor is kept for a while in case it comes back.
type Removed struct {
	Name    string
	Until   time.Time
	Pending int64 // events that it did not get
}

// Rejection is a request that was refused.
type Rejection struct {
	At     time.Time `json:"at,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// State is what a journal holds.
type State struct {
	Received     int64 // events kept since the journal was made
	Unparsed     int64
	OtherVersion int64 // events that came in another version than expected
	Rejected     int64
	LastRejected Rejection
	URLChecks    int64 // requests that only asked whether the URL is there
	LastURLCheck time.Time
	Repeated     int64
	LastReceived time.Time
	ByName       []NameCount // events by the provider's own names, sorted by name
	Removed      []Removed
	Dropped      int64 // removed targets whose cursors were dropped
	// LastOtherVersion is the last version that was not expected.
	LastOtherVersion string
	LastSeq          uint64
	Events           int64 // kept now
	Bytes            int64
	MaxBytes         int64
	DeadLetters      int64 // kept now, of all targets
	Logged           int64 // attempts that were ever written to the delivery log
	Damaged          int64 // places of damage ever found that did not keep the journal from being opened
	// Warning says what is wrong though events are accepted; empty: nothing.
	Warning string
	// Damage is the latest of them that were found since the journal was opened; empty: none.
	Damage string
}

// Journal keeps the events of one webhook.
type Journal interface {
	// Append keeps an event and returns when it is durable. A key that was seen within the last ten
	// minutes makes it a repeat, which is not kept again. Errors: ErrFull, ErrNoSpace, ErrClosed,
	// ErrUnavailable, ErrTooLarge, or that of the disk.
	Append(ctx context.Context, r Record, key *RepeatKey) (Receipt, error)
	// Reject counts a request that was refused, and notes why. It becomes durable with the next event.
	Reject(reason string)
	// CountURLCheck counts a request that only asked whether the URL is there. It becomes durable as Reject does.
	CountURLCheck()
	// Heads are the kept events after a sequence number, at most limit, in order.
	Heads(after uint64, limit int) ([]Head, error)
	// Back looks at events before a sequence number (0: at all), the newest first, for as long as look says
	// that there is more to look for. look keeps nothing of what it is given, and does not use the journal.
	Back(before uint64, look func(s Stored) (more bool)) error
	// Get is a kept event, or ErrNotFound.
	Get(seq uint64) (Record, error)
	// Attempts are those of an event that the delivery log has, in the order in which they ended.
	Attempts(seq uint64) ([]Attempt, error)
	// Latest are the newest lines of the delivery log after a number of lines ever written, without replies,
	// and that number now; at most about a thousand are remembered.
	Latest(logged int64) (attempts []Attempt, now int64)
	// DeadLetters are a target's after a sequence number, in order, at most limit.
	DeadLetters(target string, after uint64, limit int) ([]DeadLetter, error)
	// DropDeadLetters forgets dead letters of a target.
	DropDeadLetters(target string, seqs []uint64) error
	// State is what the journal holds.
	State() State
	// Problem says why no event can be kept now, or nothing. It does not change from one moment to the next for
	// as long as the cause is the same.
	Problem() error
	// Close ends it; what was appended is durable already.
	Close() error
}

// Part is what one receiver delivers of a journal: all of an embedded one, or a partition of one that several
// receivers share.
type Part interface {
	// For is the part as the dispatcher of a target reads it.
	For(target string) Part
	// Entries are the part's events after a sequence number, at most limit, in order.
	Entries(after uint64, limit int) ([]Entry, error)
	// Unread is how many events the part has after a sequence number, about.
	Unread(after uint64) int64
	// Get is a kept event, or ErrNotFound.
	Get(seq uint64) (Record, error)
	// Appended is closed when an event is kept after the call.
	Appended() <-chan struct{}
	// OpenCursor is the cursor of a target; a target that never had one begins with the next event.
	OpenCursor(target string) (Cursor, error)
	// Save keeps how far a target's dispatcher is. The dispatcher reads on meanwhile.
	Save(target string, p Progress) error
	// Evicted returns how many dead letters of a target were deleted because there were more than the journal holds
	// of one target, or they were too old.
	Evicted(target string) int64
	// KeepCursors says which targets there are. Cursors of others go after 24 hours.
	KeepCursors(targets []string) error
	// DeadLetters are a target's after a sequence number, in order, at most limit.
	DeadLetters(target string, after uint64, limit int) ([]DeadLetter, error)
}

// Expiring is a Part whose events somebody else may delete before all targets have them.
type Expiring interface {
	// First returns the number below which no event is stored any more, or 0.
	First() uint64
}
