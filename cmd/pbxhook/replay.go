package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

const waitPoll = 300 * time.Millisecond

func replayCommand() *cobra.Command {
	var receiver receiverFlags
	var r replayFlags
	var s admin.Selection
	var from, to string
	cmd := &cobra.Command{
		Use:   "replay [NAME] [-n NAMESPACE | --admin URL]",
		Short: "Hand stored events to targets again, decoded again",
		Long: "Hand stored events to targets again, decoded again. All that is given must hold. It says how many events go to\n" +
			"which targets, and asks. Each request carries the header pbxhook-replay; events join the end of their call's lane,\n" +
			"and live events of other calls go first. Events that a target does not have yet are left out.",
		Example: "  pbxhook replay --call 1610782193.391 -n crm callcenter\n" +
			"  pbxhook replay --from 2h --target crm --rate 10 -n crm callcenter\n" +
			"  pbxhook replay --dead-letters --yes --wait --admin http://127.0.0.1:9091",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if s.From, err = parseTime("--from", from); err != nil {
				return err
			}
			if s.To, err = parseTime("--to", to); err != nil {
				return err
			}
			if err := s.Check(); err != nil {
				return fmt.Errorf("%w: give --call, --event, --from, --to or --dead-letters", err)
			}
			return replay(cmd, &receiver, first(args), s, &r)
		},
	}
	receiver.add(cmd)
	r.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&s.Target, "target", "", "to one target (default: all)")
	flags.StringVar(&s.Call, "call", "", "the events of a call")
	flags.StringVar(&s.Event, "event", "", "one event, by its id")
	flags.StringVar(&from, "from", "", "events received then or later: 2026-11-22T08:00:00Z, or 2h for two hours ago")
	flags.StringVar(&to, "to", "", "events received before")
	flags.BoolVar(&s.DeadLetters, "dead-letters", false, "those that were given up for the target")
	cmd.AddCommand(listReplays(&receiver), cancelReplay(&receiver))
	return cmd
}

// replayFlags say how a replay is done.
type replayFlags struct {
	consent
	rate float64
	wait bool
}

func (r *replayFlags) add(cmd *cobra.Command) {
	r.consent.add(cmd)
	cmd.Flags().Float64Var(&r.rate, "rate", 0, "send at most so many events a second to each target (default: as fast as it takes them)")
	cmd.Flags().BoolVar(&r.wait, "wait", false, "wait until the replay has ended, and say what came of it")
}

// parseTime reads a time, or how long ago it was.
func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(strings.TrimPrefix(text, "-")); err == nil {
		return time.Now().Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%s: expected a time such as 2026-11-22T08:00:00Z, or 2h for two hours ago, got %q", flag, text)
	}
	return t, nil
}

// planned is what a command would do at a webhook.
type planned struct {
	webhook   admin.Webhook
	targets   map[string]int64 // how many events of each are meant
	givenUpTo time.Time
}

// plan asks what a command would do at each webhook that is meant, so that it is refused before anything is done.
func plan(ctx context.Context, webhooks []admin.Webhook, ask func(w admin.Webhook) (targets map[string]int64, givenUpTo time.Time, err error)) (plans []planned, total int64, err error) {
	for _, w := range webhooks {
		targets, givenUpTo, err := ask(w)
		if err != nil && len(webhooks) > 1 {
			err = fmt.Errorf("%w; nothing was done: where not all webhooks of the receiver are meant, name the one that is", err)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, 0, err
		}
		plans = append(plans, planned{w, targets, givenUpTo})
		for _, n := range targets {
			total += n
		}
	}
	return plans, total, nil
}

// tell writes a line for each target of which events are meant.
func (p *planned) tell(w io.Writer, format string) {
	for _, target := range sorted(p.targets) {
		if n := p.targets[target]; n > 0 {
			line(w, format, p.webhook, counted(n), target)
		}
	}
}

func counted(n int64) string {
	if n == 1 {
		return "1 event"
	}
	return strconv.FormatInt(n, 10) + " events"
}

// replay says what it would do, asks, and hands events to targets again.
func replay(cmd *cobra.Command, receiver *receiverFlags, name string, s admin.Selection, r *replayFlags) error {
	ctx := cmd.Context()
	client, webhooks, end, err := receiver.connect(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	request := admin.ReplayRequest{Selection: s, Rate: r.rate, By: userName()}
	plans, total, err := plan(ctx, webhooks, func(w admin.Webhook) (map[string]int64, time.Time, error) {
		request.DryRun = true
		answer, err := client.Replay(ctx, w, request)
		return answer.Targets, answer.GivenUpTo, err
	})
	if err != nil {
		return err
	}
	if total == 0 {
		return fmt.Errorf("%w: no event to replay: those that a target does not have yet are on their way", admin.ErrNotFound)
	}
	if ok, err := r.agreed(cmd, plans, total, "%s: %s to %s", "Replay"); !ok {
		return err
	}
	request.DryRun = false
	started := map[string]admin.Webhook{}
	for _, p := range plans {
		if len(p.targets) == 0 {
			continue
		}
		request.GivenUpTo = p.givenUpTo
		answer, err := client.Replay(ctx, p.webhook, request)
		if err != nil {
			return err
		}
		p.targets = answer.Targets
		p.tell(cmd.OutOrStdout(), "%s: replay "+answer.ID+": %s to %s")
		started[answer.ID] = p.webhook
	}
	if !r.wait {
		return nil
	}
	return awaitReplays(cmd, client, started)
}

// userName says who asks, for the list of replays.
func userName() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username[:min(len(u.Username), 100)]
}

// awaitReplays waits until replays have ended, and says what came of each.
func awaitReplays(cmd *cobra.Command, client *admin.Client, started map[string]admin.Webhook) error {
	var remaining atomic.Int64
	stop := progress(cmd, func() string { return fmt.Sprintf("%d events wait", remaining.Load()) })
	defer stop()
	for {
		waiting := int64(0)
		states := map[string]admin.ReplayState{}
		for id, w := range started {
			all, err := client.Replays(cmd.Context(), w)
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(all, func(s admin.ReplayState) bool { return s.ID == id }); i >= 0 {
				states[id] = all[i]
			}
			if s := states[id]; s.Phase == admin.ReplayRunning {
				waiting += max(s.Remaining, 1)
			}
		}
		if remaining.Store(waiting); waiting == 0 {
			for _, id := range sorted(states) {
				s := states[id]
				cmd.Printf("%s: replay %s %s: %d done, %d given up, %d not sent\n", s.Webhook, id, s.Phase, s.Done, s.Failed, s.Remaining)
			}
			return nil
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(waitPoll):
		}
	}
}

func listReplays(receiver *receiverFlags) *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:     "list [NAME] [-n NAMESPACE | --admin URL]",
		Short:   "List the replays that are running, and the last ones that have ended",
		Example: "  pbxhook replay list -n crm callcenter\n  pbxhook replay list -o json --admin http://127.0.0.1:9091",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			replays := []admin.ReplayState{}
			err := receiver.each(cmd.Context(), first(args), func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
				more, err := c.Replays(ctx, w)
				replays = append(replays, more...)
				return err
			})
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), replays, func(w io.Writer) { replayTable(w, replays) })
		},
	}
	output.add(cmd)
	return cmd
}

func replayTable(w io.Writer, replays []admin.ReplayState) {
	line(w, "WEBHOOK\tREPLAY\tSTATE\tDONE\tGIVEN UP\tREMAINING\tRATE\tBEGUN\tBY\tTARGETS\tWHAT")
	for i := range replays {
		r := &replays[i]
		rate := "-"
		if r.Rate > 0 {
			rate = strconv.FormatFloat(r.Rate, 'g', -1, 64) + "/s"
		}
		line(w, "%s\t%s\t%s\t%d of %d\t%d\t%d\t%s\t%s\t%s\t%s\t%s", r.Webhook, r.ID, r.Phase, r.Done, r.Total, r.Failed, r.Remaining, rate,
			stamp(r.Begun), r.By, strings.Join(r.Names(), ","), r.What)
	}
}

func cancelReplay(receiver *receiverFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "cancel ID [NAME] [-n NAMESPACE | --admin URL]",
		Short:   "Cancel a replay: what has not gone out does not go out",
		Example: "  pbxhook replay cancel 3f2a9c71d0be -n crm callcenter",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			found := false
			err := receiver.each(cmd.Context(), first(args[1:]), func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
				s, err := c.CancelReplay(ctx, w, args[0])
				if errors.Is(err, admin.ErrNotFound) {
					return nil // perhaps another webhook's
				}
				if err != nil {
					return err
				}
				found = true
				if s.Phase == admin.ReplayRunning {
					cmd.Printf("%s: replay %s is being canceled: the receivers that deliver it take this when they can; pbxhook replay list shows it\n", w, s.ID)
					return nil
				}
				cmd.Printf("%s: replay %s %s: %d done, %d given up, %d not sent\n", w, s.ID, s.Phase, s.Done, s.Failed, s.Remaining)
				return nil
			})
			if err == nil && !found {
				err = fmt.Errorf("%w: no replay %s; pbxhook replay list shows them", admin.ErrNotFound, args[0])
			}
			return err
		},
	}
}
