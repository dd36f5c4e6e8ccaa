package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Bounds of a replay request.
const (
	maxBy   = 100       // bytes
	maxRate = 1_000_000 // events a second: more cannot be meant
)

// Selection says which events, all that is set must hold.
type Selection struct {
	Target string    `json:"target,omitempty"` // one target; empty: all
	Call   string    `json:"call,omitempty"`   // events of a call
	Event  string    `json:"event,omitempty"`  // one event, by its id
	From   time.Time `json:"from,omitzero"`    // received then or later
	To     time.Time `json:"to,omitzero"`      // received before
	// DeadLetters: those that were given up; else all that are stored.
	DeadLetters bool `json:"deadLetters,omitempty"`
	// GivenUpTo leaves out dead letters that were given up later: what a person has not seen.
	GivenUpTo time.Time `json:"givenUpTo,omitzero"`
}

// Check returns an error where a selection has no bound, which cannot be meant, or contradicts itself.
func (s *Selection) Check() error {
	if s.Call == "" && s.Event == "" && s.From.IsZero() && s.To.IsZero() && !s.DeadLetters {
		return fmt.Errorf("%w: expected a call, an event, a time from or to, or dead letters", ErrInvalid)
	}
	if !s.From.IsZero() && !s.To.IsZero() && !s.From.Before(s.To) {
		return fmt.Errorf("%w: expected from before to, got %s and %s", ErrInvalid, s.From.Format(time.RFC3339), s.To.Format(time.RFC3339))
	}
	return nil
}

// String says which events, without their targets.
func (s *Selection) String() string {
	what := "events"
	if s.DeadLetters {
		what = "dead letters"
	}
	if s.Event != "" {
		what = strings.TrimSuffix(what, "s") + " " + s.Event
	}
	if s.Call != "" {
		what += " of call " + s.Call
	}
	if !s.From.IsZero() {
		what += " from " + s.From.UTC().Format(time.RFC3339)
	}
	if !s.To.IsZero() {
		what += " to " + s.To.UTC().Format(time.RFC3339)
	}
	return what
}

// ReplayRequest asks that events go to targets again.
type ReplayRequest struct {
	Selection
	// Rate is how many events a second go to each target at most; 0: as fast as the target takes them.
	Rate float64 `json:"rate,omitempty"`
	// By is who asks, for the list of replays; the receiver believes it.
	By string `json:"by,omitempty"`
	// DryRun says what would be done, and does nothing.
	DryRun bool `json:"dryRun,omitempty"`
}

// Check returns an error where a request makes no sense.
func (r *ReplayRequest) Check() error {
	if err := r.Selection.Check(); err != nil {
		return err
	}
	if r.Rate < 0 || r.Rate > maxRate || math.IsNaN(r.Rate) {
		return fmt.Errorf("%w: expected a rate from 0 (no bound) to %d events a second, got %v", ErrInvalid, maxRate, r.Rate)
	}
	if len(r.By) > maxBy {
		return fmt.Errorf("%w: expected at most %d bytes that say who asks, got %d", ErrInvalid, maxBy, len(r.By))
	}
	return nil
}

// Replay says what a replay request does, or in a dry run would do.
type Replay struct {
	// ID is in the header pbxhook-replay of each request; empty in a dry run.
	ID string `json:"id,omitempty"`
	// Targets are how many events go to each.
	Targets map[string]int64 `json:"targets"`
	// GivenUpTo is when the newest of the dead letters was given up, to ask for these and no later ones.
	GivenUpTo time.Time `json:"givenUpTo,omitzero"`
	DryRun    bool      `json:"dryRun,omitempty"`
}

// DropRequest asks that dead letters are deleted.
type DropRequest struct {
	Selection
	// DryRun says what would be done, and does nothing.
	DryRun bool `json:"dryRun,omitempty"`
}

// Drop says what a drop request did, or in a dry run would do.
type Drop struct {
	Dropped int64 `json:"dropped"` // 0 in a dry run
	// Targets are how many dead letters of each are meant.
	Targets map[string]int64 `json:"targets"`
	// GivenUpTo is when the newest of them was given up, to ask for these and no later ones.
	GivenUpTo time.Time `json:"givenUpTo,omitzero"`
	DryRun    bool      `json:"dryRun,omitempty"`
}

// ReplayPhase is how far a replay is.
type ReplayPhase string

// The phases of a replay.
const (
	ReplayRunning  ReplayPhase = "running"
	ReplayFinished ReplayPhase = "finished"
	ReplayCanceled ReplayPhase = "canceled"
)

// ReplayState is a replay that is running, or one of the last that have ended.
type ReplayState struct {
	ID      string      `json:"id"`
	Webhook string      `json:"webhook"`
	What    string      `json:"what"` // which events
	By      string      `json:"by,omitempty"`
	Phase   ReplayPhase `json:"phase"`
	Begun   time.Time   `json:"begun"`
	Ended   time.Time   `json:"ended,omitzero"`
	Rate    float64     `json:"rate,omitempty"` // events a second to each target; 0: no bound
	ReplayProgress
	Targets []ReplayTarget `json:"targets"`
}

// ReplayTarget is how far a replay is at a target.
type ReplayTarget struct {
	Target string `json:"target"`
	ReplayProgress
}

// ReplayProgress counts the events of a replay.
type ReplayProgress struct {
	Total     int64 `json:"total"`
	Done      int64 `json:"done"`      // delivered, or not wanted by the target's filter
	Failed    int64 `json:"failed"`    // became dead letters again, or are no longer stored
	Remaining int64 `json:"remaining"` // of a canceled replay: not sent
}

// Add adds the events of another target, or of another partition.
func (p *ReplayProgress) Add(o ReplayProgress) {
	p.Total += o.Total
	p.Done += o.Done
	p.Failed += o.Failed
	p.Remaining += o.Remaining
}

// Names returns the targets of a replay.
func (r *ReplayState) Names() []string {
	names := make([]string, 0, len(r.Targets))
	for _, t := range r.Targets {
		names = append(names, t.Target)
	}
	return slices.Sorted(slices.Values(names))
}

func (h *handler) drop(r *http.Request, w Webhook) (any, error) {
	var request DropRequest
	if err := readRequest(r, &request); err != nil {
		return nil, err
	}
	if err := request.Check(); err != nil {
		return nil, err
	}
	return h.service.DropDeadLetters(w, request)
}

func (h *handler) replay(r *http.Request, w Webhook) (any, error) {
	var request ReplayRequest
	if err := readRequest(r, &request); err != nil {
		return nil, err
	}
	if err := request.Check(); err != nil {
		return nil, err
	}
	return h.service.Replay(r.Context(), w, request)
}

func (h *handler) replays(r *http.Request, w Webhook) (any, error) {
	return h.service.Replays(r.Context(), w)
}

func (h *handler) cancelReplay(r *http.Request, w Webhook) (any, error) {
	return h.service.CancelReplay(r.Context(), w, r.PathValue("id"))
}

// readRequest reads the body of a request, which is bounded.
func readRequest(r *http.Request, request any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(request); err != nil {
		return fmt.Errorf("%w: read which events: %w", ErrInvalid, err)
	}
	return nil
}
