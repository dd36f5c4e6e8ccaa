package receiver

import (
	"bytes"
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// search looks through a webhook's journal, from the newest event to the oldest.
type search struct {
	webhook  *webhook
	plan     *plan
	query    admin.CallQuery
	number   string          // the digits of the query's text
	deadline time.Time       // zero until it is where it begins to look
	known    map[string]bool // lanes that were found, or that the page before has

	found   []found
	looked  int
	reached time.Time // when the last event that was looked at was received; zero: all were
}

// run looks until there are as many calls as asked for, or the time is over.
func (s *search) run(ctx context.Context, limit int) error {
	s.known = map[string]bool{}
	for before := uint64(math.MaxUint64); ; {
		candidates, next, err := s.chunk(before)
		if err != nil {
			return err
		}
		if candidates, err = s.withOutcome(ctx, candidates); err != nil {
			return err
		}
		for _, h := range candidates {
			if h.Lane != "" && s.known[h.Lane] {
				continue
			}
			if len(s.found) == limit {
				s.reached = s.found[limit-1].at
				return nil
			}
			s.known[h.Lane] = true
			s.found = append(s.found, found{seq: h.Seq, lane: h.Lane, at: h.ReceivedAt})
		}
		if next == 0 {
			s.reached = time.Time{}
			return nil
		}
		if s.late() || ctx.Err() != nil {
			return ctx.Err()
		}
		before = next
	}
}

// chunk looks at some events, and returns those that match but for their outcome. next is where to go on; 0:
// there are no more.
func (s *search) chunk(before uint64) (candidates []journal.Head, next uint64, err error) {
	n, cut := 0, false
	err = s.webhook.journal.Back(before, func(e journal.Stored) bool {
		n++
		next = e.Seq
		if !s.query.Before.IsZero() && !e.ReceivedAt.Before(s.query.Before) {
			s.skip(e)
			return n < searchChunk
		}
		s.reached = e.ReceivedAt
		if s.deadline.IsZero() {
			s.deadline = time.Now().Add(searchTime)
		}
		if !s.query.From.IsZero() && e.ReceivedAt.Before(s.query.From.Add(-time.Minute)) { // those received at once may be kept in another order
			next = 0
			return false
		}
		if s.matches(e) {
			candidates = append(candidates, e.Head)
		}
		cut = n%64 == 0 && s.late()
		return n < searchChunk && !cut
	})
	s.looked += n
	if n < searchChunk && !cut {
		next = 0
	}
	return candidates, next, err
}

func (s *search) late() bool { return !s.deadline.IsZero() && time.Now().After(s.deadline) }

// skip passes over an event that the page before is about. A call that it showed is not shown again; with a
// search by text or outcome it may be, since whether it was shown would take as long as to find it.
func (s *search) skip(e journal.Stored) {
	q := &s.query
	if e.Lane != "" && q.Text == "" && q.Target == "" && q.Outcome == "" && s.matches(e) {
		s.known[e.Lane] = true
	}
}

func (s *search) matches(e journal.Stored) bool {
	q := &s.query
	switch {
	case !q.From.IsZero() && e.ReceivedAt.Before(q.From), !q.To.IsZero() && !e.ReceivedAt.Before(q.To):
		return false
	case q.Type != "" && e.Type != q.Type:
		return false
	case q.Text == "", strings.Contains(e.Lane, q.Text), e.ID == q.Text, len(q.Text) >= idPrefix && strings.HasPrefix(e.ID, q.Text):
		return true
	}
	return s.number != "" && hasDigits(e.Data, lastDigits(s.number)) && s.isAbout(e)
}

// compared is how many digits of two numbers are, from the end: what stands before differs by how a number is
// written.
const compared = 9

func lastDigits(number string) string { return number[max(0, len(number)-compared):] }

func digits(text string) string {
	if strings.Trim(text, "0123456789+ ().-/") != "" {
		return ""
	}
	return admin.Digits(text)
}

// hasDigits is whether some bytes hold the digits of a number, perhaps with what is written between them.
func hasDigits(data []byte, number string) bool {
	for len(data) > 0 {
		at := bytes.IndexByte(data, number[0])
		if at < 0 {
			return false
		}
		data = data[at+1:]
		if begins(data, number[1:]) {
			return true
		}
	}
	return false
}

func begins(data []byte, number string) bool {
	for i := 0; number != ""; i++ {
		switch {
		case i == len(data):
			return false
		case data[i] == number[0]:
			number = number[1:]
		case strings.IndexByte(" ().-", data[i]) < 0:
			return false
		}
	}
	return true
}

// isAbout is whether a number of the event is the one that is looked for.
func (s *search) isAbout(e journal.Stored) bool {
	record, err := e.Record()
	if err != nil {
		return false
	}
	decoded := s.plan.decode(&record)
	return slices.ContainsFunc(numbersOf(decoded), func(number string) bool {
		has := digits(number)
		if len(has) < 5 || len(s.number) < 5 { // an extension, or a queue
			return has == s.number
		}
		return strings.Contains(has, lastDigits(s.number)) || strings.HasSuffix(s.number, lastDigits(has)) && len(has) >= compared
	})
}

// numbersOf are the numbers of an event, in every form that it has them.
func numbersOf(e *event.Event) []string {
	var all []string
	party := func(p event.Party) { all = append(all, p.Number, p.Raw, p.Extension) }
	if c := e.Call; c != nil {
		party(c.From)
		party(c.To)
		all = append(all, c.DID, c.Queue)
		for _, agent := range c.Agents {
			all = append(all, agent.Number)
		}
	}
	switch {
	case e.Extension != nil:
		all = append(all, e.Extension.Number, e.Extension.Participant)
	case e.SMS != nil:
		party(e.SMS.From)
		party(e.SMS.To)
	case e.Fax != nil:
		party(e.Fax.From)
		party(e.Fax.To)
	case e.Voicemail != nil:
		all = append(all, e.Voicemail.Mailbox, e.Voicemail.Caller)
	case e.Survey != nil:
		party(e.Survey.From)
		party(e.Survey.To)
	case e.Campaign != nil:
		all = append(all, e.Campaign.Number)
	case e.QueueReservation != nil:
		all = append(all, e.QueueReservation.Queue, e.QueueReservation.Caller)
	}
	return all
}

// withOutcome takes the events that have the outcome that is looked for.
func (s *search) withOutcome(ctx context.Context, candidates []journal.Head) ([]journal.Head, error) {
	if s.query.Target == "" && s.query.Outcome == "" || len(candidates) == 0 {
		return candidates, nil
	}
	fates, err := s.webhook.fates(ctx, candidates)
	if err != nil {
		return nil, err
	}
	wanted := func(h journal.Head) bool {
		for target, outcome := range fates.outcomes(h.Seq) {
			if (s.query.Target == "" || s.query.Target == target) && (outcome == s.query.Outcome || s.query.Outcome == "" && outcome != admin.NotSent) {
				return true
			}
		}
		return false
	}
	return slices.DeleteFunc(candidates, func(h journal.Head) bool { return !wanted(h) }), nil
}
