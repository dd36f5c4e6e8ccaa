package console

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

// The first columns of a ladder; targets follow.
const (
	columnPBX = iota
	columnPbxhook
	columnTargets
)

// maxInline is how much text a ladder has inside; beyond it, arrows lead to the event that they are about.
const maxInline = 2 << 20

// ladder is a call drawn in time: an arrow for each request, between PBX, pbxhook and targets.
type ladder struct {
	admin.CallDetail
	Columns []string
	Rows    []row
	Numbers bool
	From    string // masked where asked for
	To      string
}

// row is an arrow, and what it opens.
type row struct {
	ID       string
	At       time.Time
	Since    time.Duration // the call's first event
	From, To float64       // where the arrow begins and ends, in per cent of the width
	Middle   float64
	Label    string
	Kind     string // event, delivered, retried, deadLettered, pending
	Event    *panel
	Attempt  *admin.Attempt
	EventID  string
	Target   string
	About    string // the row of the event that an attempt is about
	Again    bool   // the attempt can be made again
	Reply    string // of either side
	Fates    []fate // of an event
}

// panel is an event in full.
type panel struct {
	Head    string // the request's first line
	Headers []string
	Body    string
	Event   string
	Reason  string
}

// fate is what became of an event at a target that was not sent to.
type fate struct {
	Target string
	Text   string
}

func newLadder(d *admin.CallDetail, numbers bool) *ladder {
	l := &ladder{CallDetail: *d, Numbers: numbers, Columns: append([]string{string(d.Provider), "pbxhook"}, d.Targets...)}
	mask := maskFor(d, numbers)
	l.From, l.To = maskedNumber(d.From, numbers), maskedNumber(d.To, numbers)
	inline := 0
	for i := range d.Events {
		e := &d.Events[i]
		about := fmt.Sprintf("event-%d", i+1)
		full := panelOf(e, mask)
		arrived := row{
			ID: about, At: e.ReceivedAt, Label: string(e.Type), Kind: "event", Event: full, EventID: e.ID,
			Reply: accepted(e, full.Reason),
		}
		l.place(&arrived, columnPBX, columnPbxhook)
		rows := []row{}
		for n := range e.Deliveries {
			delivery := &e.Deliveries[n]
			for a := range delivery.Attempts {
				attempt := &delivery.Attempts[a]
				sent := row{
					ID: fmt.Sprintf("%s-%d-%d", about, n+1, a+1), At: attempt.Time, Label: label(attempt), Kind: attempt.Result, Attempt: attempt,
					Target: delivery.Target, EventID: e.ID, About: about, Reply: mask(attempt.Reply),
					Again: a == len(delivery.Attempts)-1 && delivery.Outcome == admin.DeadLettered,
				}
				if inline += full.size(); inline < maxInline {
					sent.Event = full
				}
				l.place(&sent, columnPbxhook, columnTargets+n)
				rows = append(rows, sent)
			}
			switch delivery.Outcome {
			case admin.NotSent:
				arrived.Fates = append(arrived.Fates, fate{delivery.Target, "not sent: " + delivery.Why})
			case admin.Pending:
				waits := row{ID: fmt.Sprintf("%s-%d-0", about, n+1), At: e.ReceivedAt, Label: "waits", Kind: "pending", Target: delivery.Target, EventID: e.ID, About: about}
				l.place(&waits, columnPbxhook, columnTargets+n)
				rows = append(rows, waits)
			}
		}
		l.Rows = append(append(l.Rows, arrived), rows...)
	}
	slices.SortStableFunc(l.Rows, func(a, b row) int { return a.At.Compare(b.At) })
	for i := range l.Rows {
		l.Rows[i].Since = l.Rows[i].At.Sub(d.First).Round(time.Millisecond)
	}
	return l
}

// place puts an arrow between two columns.
func (l *ladder) place(r *row, from, to int) {
	r.From, r.To = l.Middle(from), l.Middle(to)
	r.Middle = (r.From + r.To) / 2
}

// Middle is the middle of a column, in per cent of the width.
func (l *ladder) Middle(column int) float64 {
	return (float64(column) + 0.5) * 100 / float64(len(l.Columns))
}

// Title names what the ladder is of.
func (l *ladder) Title() string { return title(l.Call) }

// Link leads to this ladder.
func (l *ladder) Link() string { return callLink(l.Call) }

func title(c admin.Call) string {
	switch kind, name, ok := strings.Cut(c.ID, ":"); {
	case c.ID == "":
		return "event " + c.Event
	case ok && kind == "exten":
		return "extension " + name
	case ok && (kind == "trunk" || kind == "queue"):
		return kind + " " + name
	}
	return "call " + c.ID
}

func callLink(c admin.Call) string {
	query := url.Values{"webhook": {c.Webhook}}
	if c.ID != "" {
		query.Set("id", c.ID)
	} else {
		query.Set("event", c.Event)
	}
	return "/call?" + query.Encode()
}

func label(a *admin.Attempt) string {
	text := fmt.Sprintf("%d", a.Status)
	if a.Status == 0 {
		text = "no answer"
	}
	if a.Replay != "" {
		text += " (replay)"
	}
	return text + ", " + took(a.DurationMs)
}

func took(ms float64) string {
	return (time.Duration(ms * float64(time.Millisecond))).Round(100 * time.Microsecond).String()
}

// accepted is what the PBX was told.
func accepted(e *admin.EventDetail, reason string) string {
	answer := map[string]string{"id": e.ID, "type": string(e.Type)}
	if reason != "" {
		answer["reason"] = reason
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return "202"
	}
	return "202 " + string(text)
}

func (p *panel) size() int { return len(p.Head) + len(p.Body) + len(p.Event) }

func panelOf(e *admin.EventDetail, mask func(string) string) *panel {
	p := &panel{Reason: mask(e.Reason), Body: mask(e.Request.Body), Head: e.Request.Method + " " + mask(cmp.Or(e.Request.Path, "/"))}
	if e.Request.Query != "" {
		p.Head += "?" + mask(e.Request.Query)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Request.Header)) {
		for _, value := range e.Request.Header[name] {
			p.Headers = append(p.Headers, name+": "+mask(value))
		}
	}
	p.Event = mask(indented(e.Event))
	return p
}

func indented(text json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return string(text)
	}
	return out.String()
}

// maskFor hides numbers and recordings in texts of a call, unless they are to be shown.
func maskFor(d *admin.CallDetail, numbers bool) func(string) string {
	if numbers {
		return func(text string) string { return text }
	}
	mask := admin.Mask{Keep: []string{d.ID}}
	for i := range d.Events {
		e := &d.Events[i]
		mask.Keep = append(mask.Keep, e.ID)
		var known struct {
			Data struct {
				Call struct{ Recording string }
			}
		}
		if json.Unmarshal(e.Event, &known) == nil && known.Data.Call.Recording != "" && !slices.Contains(mask.Hide, known.Data.Call.Recording) {
			mask.Hide = append(mask.Hide, known.Data.Call.Recording)
		}
	}
	return mask.Text
}

func maskedText(text string, shown bool) string {
	if shown {
		return text
	}
	return admin.Mask{}.Text(text)
}

func maskedNumber(number string, shown bool) string {
	if shown {
		return number
	}
	return admin.MaskNumber(number)
}
