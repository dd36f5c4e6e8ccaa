package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

func replayCommand() *cobra.Command {
	var receiver receiverFlags
	var s admin.Selection
	var from, to string
	var wait bool
	cmd := &cobra.Command{
		Use:   "replay [NAME] [-n NAMESPACE | --admin URL]",
		Short: "Hand kept events to targets again, decoded anew",
		Long: "Hand kept events to targets again, decoded anew. All that is given must hold. Each request carries the\n" +
			"header pbxhook-replay; events join the end of their call's lane. Events that a target does not have yet are left out.",
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
			return replay(cmd, &receiver, first(args), s, wait)
		},
	}
	receiver.add(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the targets are done with all that waits, and say how far they are")
	flags := cmd.Flags()
	flags.StringVar(&s.Target, "target", "", "to one target (default: all)")
	flags.StringVar(&s.Call, "call", "", "the events of a call")
	flags.StringVar(&s.Event, "event", "", "one event, by its id")
	flags.StringVar(&from, "from", "", "events received then or later: 2026-11-22T08:00:00Z, or 2h for two hours ago")
	flags.StringVar(&to, "to", "", "events received before")
	flags.BoolVar(&s.DeadLetters, "dead-letters", false, "those that were given up for the target")
	return cmd
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

// replay asks for a replay and says what comes of it.
func replay(cmd *cobra.Command, receiver *receiverFlags, name string, s admin.Selection, wait bool) error {
	events := int64(0)
	err := receiver.each(cmd.Context(), name, func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
		answer, err := c.Replay(ctx, w, s)
		if errors.Is(err, admin.ErrNotFound) && name == "" {
			return nil // another webhook's target
		}
		if err != nil {
			return err
		}
		for target, n := range answer.Targets {
			events += n
			if n > 0 {
				cmd.Printf("%s: replay %s: %d events to %s\n", w, answer.ID, n, target)
			}
		}
		if wait {
			return settled(ctx, cmd, c, w, answer.Targets)
		}
		return nil
	})
	if err == nil && events == 0 {
		err = fmt.Errorf("%w: no event to replay: those that a target does not have yet are on their way", admin.ErrNotFound)
	}
	return err
}

const settlePause = 300 * time.Millisecond

// settled waits until targets have nothing pending.
func settled(ctx context.Context, cmd *cobra.Command, c *admin.Client, w admin.Webhook, targets map[string]int64) error {
	var pending atomic.Int64
	stop := progress(cmd, func() string { return fmt.Sprintf("%s: %d events wait", w, pending.Load()) })
	defer stop()
	for {
		select { // first, so that the targets have begun
		case <-ctx.Done():
			return nil
		case <-time.After(settlePause):
		}
		all, err := c.Status(ctx)
		if err != nil {
			return err
		}
		pending.Store(0)
		for _, s := range all {
			for _, t := range s.Targets {
				if targets[t.Name] > 0 && s.Webhook == w.String() {
					pending.Add(t.Pending)
				}
			}
		}
		if pending.Load() == 0 {
			return nil
		}
	}
}
