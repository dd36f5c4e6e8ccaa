package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
)

// Outcome is what became of an event, or a call, at a target.
type Outcome string

// The outcomes, the worst last: that of a call is the worst of its events.
const (
	NotSent      Outcome = "notSent" // not wanted, older than the target, or longer ago than the delivery log reaches
	Delivered    Outcome = "delivered"
	Pending      Outcome = "pending" // not tried yet
	Retrying     Outcome = "retrying"
	DeadLettered Outcome = "deadLettered"
)

// Outcomes are all of them, the worst last.
var Outcomes = []Outcome{NotSent, Delivered, Pending, Retrying, DeadLettered}

// Worse is the worse of two outcomes.
func (o Outcome) Worse(other Outcome) Outcome {
	return Outcomes[max(slices.Index(Outcomes, o), slices.Index(Outcomes, other), 0)]
}

// Bounds of searches.
const (
	DefaultCalls = 50
	MaxCalls     = 500
	maxQuery     = 256
)

// CallQuery says which calls; all that is set must hold for one event of the call.
type CallQuery struct {
	Webhook string     // namespace/name; empty: all
	Text    string     // a number of any form, a part of a call's id, or the beginning of an event's
	Type    event.Type // canonical type
	Target  string     // that has an outcome
	Outcome Outcome    // at the target, or at any
	From    time.Time  // received then or later
	To      time.Time  // received before
	Before  time.Time  // calls after those of a page, by its CallPage.Before
	Limit   int        // calls; 0: DefaultCalls
}

// Values are the parameters of a URL that say the same.
func (q CallQuery) Values() url.Values {
	values := url.Values{}
	set := func(name, value string) {
		if value != "" {
			values.Set(name, value)
		}
	}
	set("webhook", q.Webhook)
	set("q", q.Text)
	set("type", string(q.Type))
	set("target", q.Target)
	set("outcome", string(q.Outcome))
	if !q.From.IsZero() {
		set("from", q.From.UTC().Format(time.RFC3339Nano))
	}
	if !q.To.IsZero() {
		set("to", q.To.UTC().Format(time.RFC3339Nano))
	}
	if !q.Before.IsZero() {
		set("before", q.Before.UTC().Format(time.RFC3339Nano))
	}
	if q.Limit != 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	return values
}

// ParseCallQuery reads what Values wrote, or a form of the console.
func ParseCallQuery(r *http.Request) (q CallQuery, err error) {
	q = CallQuery{
		Webhook: r.FormValue("webhook"), Text: r.FormValue("q"), Type: event.Type(r.FormValue("type")),
		Target: r.FormValue("target"), Outcome: Outcome(r.FormValue("outcome")),
	}
	if len(q.Text) > maxQuery {
		return q, fmt.Errorf("%w: expected a search of at most %d bytes", ErrInvalid, maxQuery)
	}
	if q.Outcome != "" && !slices.Contains(Outcomes, q.Outcome) {
		return q, fmt.Errorf("%w: expected an outcome of %v, got %q", ErrInvalid, Outcomes, q.Outcome)
	}
	if q.From, err = parseTime(r.FormValue("from")); err != nil {
		return q, err
	}
	if q.To, err = parseTime(r.FormValue("to")); err != nil {
		return q, err
	}
	if q.Before, err = parseTime(r.FormValue("before")); err != nil {
		return q, err
	}
	q.Limit, err = parseLimit(r, DefaultCalls, MaxCalls)
	return q, err
}

// parseTime reads a time as programs write it, or as a browser's field does: that is UTC.
func parseTime(text string) (t time.Time, err error) {
	if text == "" {
		return t, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04", "2006-01-02T15:04:05", time.DateOnly} {
		if t, err = time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return t, fmt.Errorf("%w: expected a time such as 2026-11-22T08:00:00Z, got %q", ErrInvalid, text)
}

func parseLimit(r *http.Request, usual, most int) (int, error) {
	text := r.FormValue("limit")
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%w: expected a limit of 1 to %d, got %q", ErrInvalid, most, text)
	}
	return n, nil
}

// Call is a call, as a line of a list: or an event that belongs to none, or those of an extension, a trunk or
// a queue.
type Call struct {
	Webhook     string             `json:"webhook"`
	ID          string             `json:"id"` // empty for an event that stands alone
	Event       string             `json:"event,omitempty"`
	Provider    v1alpha1.Provider  `json:"provider"`
	First       time.Time          `json:"first"` // when its first event was received
	Last        time.Time          `json:"last"`
	Direction   string             `json:"direction"`
	From        string             `json:"from"`
	To          string             `json:"to"`
	State       string             `json:"state"`
	TalkSeconds *int64             `json:"talkSeconds"`
	Types       []event.Type       `json:"types"`            // of its events, in the order received
	Reason      string             `json:"reason,omitempty"` // why the last of them that could not be decoded could not
	Outcomes    map[string]Outcome `json:"outcomes"`
}

// CallPage is what a search found.
type CallPage struct {
	Calls []Call `json:"calls"` // the latest first
	// Before is where to go on, by CallQuery.Before; zero: there are no more.
	Before time.Time `json:"before,omitzero"`
	Looked int       `json:"looked"` // events that were looked at
}

// CallDetail is all that is known of a call.
type CallDetail struct {
	Call
	Targets []string      `json:"targets"` // in the order of the webhook
	Events  []EventDetail `json:"events"`  // in the order received
	More    bool          `json:"more"`    // there are earlier ones, which are not shown
}

// EventDetail is all that is known of an event.
type EventDetail struct {
	ID         string          `json:"id"`
	Type       event.Type      `json:"type"`
	Name       string          `json:"name"` // the provider's own
	ReceivedAt time.Time       `json:"receivedAt"`
	Reason     string          `json:"reason,omitempty"` // why it could not be decoded
	Request    Request         `json:"request"`
	Event      json.RawMessage `json:"event"` // the CloudEvent, decoded anew
	Deliveries []Delivery      `json:"deliveries"`
}

// Request is what came from the PBX.
type Request struct {
	Method string      `json:"method"`
	Path   string      `json:"path"` // what followed the webhook's own
	Query  string      `json:"query"`
	Header http.Header `json:"header"`
	Body   string      `json:"body"`
}

// Delivery is what became of an event at a target.
type Delivery struct {
	Target   string    `json:"target"`
	Outcome  Outcome   `json:"outcome"`
	Why      string    `json:"why,omitempty"` // it was not sent
	Attempts []Attempt `json:"attempts"`
}

// Attempt is one request to a target.
type Attempt struct {
	Event      string    `json:"event,omitempty"`   // its id; only where attempts stand alone
	Webhook    string    `json:"webhook,omitempty"` // likewise
	Target     string    `json:"target"`
	Time       time.Time `json:"time"`
	DurationMs float64   `json:"durationMs"`
	Result     string    `json:"result"` // delivered, retried, deadLettered
	Status     int       `json:"status,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Reply      string    `json:"reply,omitempty"`
	Next       time.Time `json:"next,omitzero"`
	Replay     string    `json:"replay,omitempty"`
}

// Rejected is a request that was answered with an error.
type Rejected struct {
	Time        time.Time `json:"time"`
	Webhook     string    `json:"webhook"` // empty where none has the path
	Path        string    `json:"path,omitempty"`
	Code        int       `json:"code"` // 0: there was no response
	Reason      string    `json:"reason"`
	Hint        string    `json:"hint,omitempty"`
	Method      string    `json:"method"`
	Sender      string    `json:"sender"`
	UserAgent   string    `json:"userAgent"`
	ContentType string    `json:"contentType"`
}

// Status is how a webhook fares.
type Status struct {
	Webhook  string                `json:"webhook"`
	Provider v1alpha1.Provider     `json:"provider"`
	Events   v1alpha1.EventsStatus `json:"events"`
	Journal  JournalStatus         `json:"journal"`
	Targets  []TargetStatus        `json:"targets"`
}

// JournalStatus is how full a journal is.
type JournalStatus struct {
	Events      int64 `json:"events"`
	Bytes       int64 `json:"bytes"`
	MaxBytes    int64 `json:"maxBytes"`
	DeadLetters int64 `json:"deadLetters"`
	// Problem says why no event can be kept now; empty: they can.
	Problem string `json:"problem,omitempty"`
	// Warning says what is wrong though events are accepted; empty: nothing.
	Warning string `json:"warning,omitempty"`
}

// TargetStatus is how a target fares.
type TargetStatus struct {
	v1alpha1.TargetStatus
	Host        string `json:"host,omitempty"` // that it is at: the rest of its URL may be a secret
	PerMinute   int64  `json:"perMinute"`      // deliveries in the last minute
	BreakerOpen bool   `json:"breakerOpen"`
	Suspended   bool   `json:"suspended"`
}

// Update is something that happened: an event that was kept, or an attempt that ended.
type Update struct {
	Event   *Line    `json:"event,omitempty"`
	Attempt *Attempt `json:"attempt,omitempty"`
}

// Line is an event in brief.
type Line struct {
	Webhook    string     `json:"webhook"`
	ID         string     `json:"id"`
	Call       string     `json:"call"`
	Type       event.Type `json:"type"`
	Name       string     `json:"name"`
	ReceivedAt time.Time  `json:"receivedAt"`
	From       string     `json:"from"`
	To         string     `json:"to"`
}
