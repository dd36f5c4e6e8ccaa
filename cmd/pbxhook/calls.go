package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
)

// numbersFlag is whether tables show numbers.
type numbersFlag bool

func (n *numbersFlag) add(cmd *cobra.Command) {
	cmd.PersistentFlags().BoolVar((*bool)(n), "show-numbers", false, "show numbers, of which tables show the last digits alone")
}

func (n numbersFlag) of(number string) string {
	if n {
		return number
	}
	return admin.MaskNumber(number)
}

func callsCommand() *cobra.Command {
	var receiver receiverFlags
	var output outputFlag
	var numbers numbersFlag
	var q admin.CallQuery
	var from, to, kind, outcome string
	var all bool
	cmd := &cobra.Command{
		Use:   "calls [NAME] [-n NAMESPACE | --admin URL]",
		Short: "List calls, the latest first: what came, and what became of it at each target",
		Example: "  pbxhook calls callcenter -n crm --from 2h\n" +
			"  pbxhook calls crm/callcenter --type call.missed --outcome deadLettered\n" +
			"  pbxhook calls --search 0912 --show-numbers     # of a local pbxhook run",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := output.check()
			if err == nil {
				q.From, err = parseTime("--from", from)
			}
			if err == nil {
				q.To, err = parseTime("--to", to)
			}
			if err != nil {
				return err
			}
			if err := oneOf("--type", kind, texts(event.Types)); err != nil {
				return err
			}
			if err := oneOf("--outcome", outcome, texts(admin.Outcomes)); err != nil {
				return err
			}
			q.Type, q.Outcome = event.Type(kind), admin.Outcome(outcome)
			if all {
				q.Limit = math.MaxInt
			}
			found := callList{calls: []admin.Call{}}
			if err := receiver.each(cmd.Context(), first(args), func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
				q.Webhook = w.String()
				if err := knownTarget(ctx, c, w, q.Target); err != nil {
					return err
				}
				return found.collect(ctx, c, q)
			}); err != nil {
				return err
			}
			slices.SortStableFunc(found.calls, func(a, b admin.Call) int { return b.Last.Compare(a.Last) })
			if err := output.write(cmd.OutOrStdout(), found.calls, func(w io.Writer) { callTable(w, found.calls, numbers) }); err != nil {
				return err
			}
			if found.cut {
				cmd.PrintErrf("There are more calls than these %d: --all lists all of them, --limit N more.\n", len(found.calls))
			}
			return nil
		},
	}
	receiver.add(cmd)
	output.add(cmd)
	numbers.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.Text, "search", "", "a number in any form, a part of a call's id, or the beginning of an event's")
	flags.StringVar(&kind, "type", "", "calls with an event of this type, such as call.missed")
	flags.StringVar(&q.Target, "target", "", "calls with an event that went to this target")
	flags.StringVar(&outcome, "outcome", "", "calls with an event that is notSent, delivered, pending, retrying or deadLettered")
	flags.StringVar(&from, "from", "", "events received then or later: 2026-11-22T08:00:00Z, or 2h for two hours ago")
	flags.StringVar(&to, "to", "", "events received before")
	flags.IntVar(&q.Limit, "limit", admin.DefaultCalls, "how many to list of each webhook, at most")
	flags.BoolVar(&all, "all", false, "list all")
	cmd.MarkFlagsMutuallyExclusive("all", "limit")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(texts(event.Types), cobra.ShellCompDirectiveNoFileComp))       // it is a flag
	_ = cmd.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions(texts(admin.Outcomes), cobra.ShellCompDirectiveNoFileComp)) // it is one too
	_ = cmd.RegisterFlagCompletionFunc("target", receiver.completeTargets)                                                           // it is one too
	cmd.AddCommand(showCall(&receiver, &numbers))
	return cmd
}

// callList is what a search of one or several webhooks found.
type callList struct {
	calls []admin.Call
	cut   bool // there are more than were asked for
}

// collect follows the pages of a search until there are as many calls as asked for.
func (l *callList) collect(ctx context.Context, c *admin.Client, q admin.CallQuery) error {
	for wanted := q.Limit; ; {
		q.Limit = min(wanted, admin.MaxCalls)
		page, err := c.Calls(ctx, q)
		if err != nil {
			return err
		}
		l.calls = append(l.calls, page.Calls...)
		wanted -= len(page.Calls)
		if page.Before.IsZero() {
			return nil
		}
		if wanted <= 0 {
			l.cut = true
			return nil
		}
		q.Before = page.Before
	}
}

func callTable(w io.Writer, calls []admin.Call, numbers numbersFlag) {
	if len(calls) == 0 {
		line(w, "No calls found.")
		return
	}
	line(w, "LAST EVENT\tWEBHOOK\tCALL\tFROM\tTO\tSTATE\tEVENTS\tTARGETS")
	for _, c := range calls {
		id := c.ID
		if id == "" {
			id = "event " + c.Event
		}
		var outcomes []string
		for _, target := range slices.Sorted(maps.Keys(c.Outcomes)) {
			outcomes = append(outcomes, target+"="+string(c.Outcomes[target]))
		}
		line(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s", stamp(c.Last), c.Webhook, id, numbers.of(c.From), numbers.of(c.To), c.State, len(c.Types), strings.Join(outcomes, " "))
	}
}

func showCall(receiver *receiverFlags, numbers *numbersFlag) *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "show CALL|EVENT [NAME]",
		Short: "Show a call in time: what came from the PBX, and what each target answered",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			found := false
			err := receiver.each(cmd.Context(), first(args[1:]), func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
				detail, err := c.Call(ctx, w, args[0], "")
				if errors.Is(err, admin.ErrNotFound) {
					detail, err = c.Call(ctx, w, "", args[0])
				}
				if errors.Is(err, admin.ErrNotFound) {
					return nil // perhaps another webhook's
				}
				if err != nil {
					return err
				}
				found = true
				return output.write(cmd.OutOrStdout(), detail, func(w io.Writer) { ladder(w, &detail, *numbers) })
			})
			if err == nil && !found {
				err = fmt.Errorf("%w: no call or event %s is kept", admin.ErrNotFound, args[0])
			}
			return err
		},
	}
	output.add(cmd)
	return cmd
}

// ladder writes a call's events and attempts in the order of time.
func ladder(w io.Writer, d *admin.CallDetail, numbers numbersFlag) {
	type rung struct {
		at   time.Time
		text string
	}
	var rungs []rung
	for _, e := range d.Events {
		text := fmt.Sprintf("%s → pbxhook\t%s\t%s", d.Provider, e.Type, e.ID)
		if e.Reason != "" {
			text += "\tcould not be decoded: " + e.Reason
		}
		rungs = append(rungs, rung{e.ReceivedAt, text})
		for _, delivery := range e.Deliveries {
			for _, a := range delivery.Attempts {
				rungs = append(rungs, rung{a.Time, fmt.Sprintf("pbxhook → %s\t%s\t%s", a.Target, attemptText(&a), e.ID)})
			}
			if delivery.Why != "" {
				rungs = append(rungs, rung{e.ReceivedAt, fmt.Sprintf("pbxhook   %s\tnot sent\t%s\t%s", delivery.Target, e.ID, delivery.Why)})
			}
		}
	}
	slices.SortStableFunc(rungs, func(a, b rung) int { return a.at.Compare(b.at) })
	line(w, "%s\t%s\t%s → %s\t%s", d.Webhook, d.ID, numbers.of(d.From), numbers.of(d.To), d.State)
	for _, r := range rungs {
		line(w, "%s\t%s", r.at.Local().Format("15:04:05.000"), r.text)
	}
}

func attemptText(a *admin.Attempt) string {
	text := a.Result
	if a.Status != 0 {
		text = fmt.Sprintf("%d %s", a.Status, a.Result)
	}
	text += fmt.Sprintf(" in %.1f ms", a.DurationMs)
	if a.Reason != "" && a.Status == 0 {
		text += ": " + a.Reason
	}
	if !a.Next.IsZero() {
		text += ", next " + a.Next.Local().Format("15:04:05")
	}
	return text
}

func tailCommand() *cobra.Command {
	var receiver receiverFlags
	var output outputFlag
	var numbers numbersFlag
	cmd := &cobra.Command{
		Use:   "tail [NAME] [-n NAMESPACE | --admin URL]",
		Short: "Tell events and deliveries as they happen, until Ctrl-C",
		Long:  "Tell events and deliveries as they happen, until Ctrl-C. With -o json there is an object a line.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o: expected json, got %q", string(output))
			}
			out, name := cmd.OutOrStdout(), first(args)
			for {
				err := receiver.follow(cmd.Context(), name, func(u admin.Update) error {
					if output == "json" {
						return json.NewEncoder(out).Encode(u)
					}
					tell(out, u, numbers)
					return nil
				})
				if cmd.Context().Err() != nil {
					return nil
				}
				if receiver.admin != "" || !errors.Is(err, errEnded) {
					return err
				}
				cmd.PrintErrln("pbxhook: the connection ended; connecting again")
				select {
				case <-cmd.Context().Done():
				case <-time.After(reconnectPause):
				}
			}
		},
	}
	receiver.add(cmd)
	output.add(cmd)
	numbers.add(cmd)
	return cmd
}

// errEnded says that a connection that was there has ended.
var errEnded = errors.New("the connection ended")

func (f *receiverFlags) follow(ctx context.Context, name string, tell func(admin.Update) error) error {
	client, webhooks, end, err := f.connect(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	meant := map[string]bool{}
	for _, w := range webhooks {
		meant[w.String()] = true
	}
	err = client.Follow(ctx, func(u admin.Update) error {
		if u.Event != nil && meant[u.Event.Webhook] || u.Attempt != nil && meant[u.Attempt.Webhook] {
			return tell(u)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("%w: %w", errEnded, err)
	}
	return err
}

func tell(out io.Writer, u admin.Update, numbers numbersFlag) {
	if e := u.Event; e != nil {
		line(out, "%s  %s  %-16s %s  %s → %s", e.ReceivedAt.Local().Format("15:04:05.000"), e.Webhook, e.Type, call(e.Call, e.ID), numbers.of(e.From), numbers.of(e.To))
	}
	if a := u.Attempt; a != nil {
		line(out, "%s  %s  → %-14s %s  %s", a.Time.Local().Format("15:04:05.000"), a.Webhook, a.Target, a.Event, attemptText(a))
	}
}

func call(id, event string) string {
	if id == "" {
		return "event " + event
	}
	return "call " + id
}
