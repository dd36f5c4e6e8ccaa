package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

func deadLettersCommand() *cobra.Command {
	var receiver receiverFlags
	var s admin.Selection
	var output string
	var limit int
	cmd := &cobra.Command{
		Use:   "dead-letters [NAME] [-n NAMESPACE | --admin URL]",
		Short: "List the events that were given up for a target",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o: expected json, got %q", output)
			}
			letters := []admin.DeadLetter{}
			err := receiver.each(cmd.Context(), first(args), func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
				more, err := c.DeadLetters(ctx, w, s, limit)
				letters = append(letters, more...)
				return err
			})
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), letters)
			}
			return deadLetterTable(cmd.OutOrStdout(), letters)
		},
	}
	receiver.add(cmd)
	cmd.PersistentFlags().StringVar(&s.Target, "target", "", "one target (default: all)")
	cmd.Flags().StringVar(&s.Call, "call", "", "events of one call")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	cmd.Flags().IntVar(&limit, "limit", 1000, "how many to list of each webhook, at most")
	cmd.AddCommand(showDeadLetter(&receiver, &s), replayDeadLetters(&receiver, &s), dropDeadLetters(&receiver, &s))
	return cmd
}

// each calls do for each webhook that is meant.
func (f *receiverFlags) each(ctx context.Context, name string, do func(context.Context, *admin.Client, admin.Webhook) error) error {
	client, webhooks, end, err := f.connect(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	for _, w := range webhooks {
		if err := do(ctx, client, w); err != nil {
			return err
		}
	}
	return nil
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

func deadLetterTable(out io.Writer, letters []admin.DeadLetter) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WEBHOOK\tTARGET\tEVENT\tCALL\tATTEMPTS\tSTATUS\tGIVEN UP\tREASON")
	for _, l := range letters {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", l.Webhook, l.Target, l.ID, l.CallID, l.Attempts, l.Status, l.Time.Format(time.RFC3339), l.Reason)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func showDeadLetter(receiver *receiverFlags, s *admin.Selection) *cobra.Command {
	return &cobra.Command{
		Use:   "show EVENT [NAME] --target TARGET",
		Short: "Show one, with the event and the target's last answer",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.Target == "" {
				return errors.New("expected --target: an event may be a dead letter of several")
			}
			found := false
			err := receiver.each(cmd.Context(), first(args[1:]), func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
				letter, err := c.DeadLetter(ctx, w, s.Target, args[0])
				if errors.Is(err, admin.ErrNotFound) {
					return nil // perhaps another webhook's
				}
				if err != nil {
					return err
				}
				found = true
				return printJSON(cmd.OutOrStdout(), letter)
			})
			if err == nil && !found {
				err = fmt.Errorf("%w: target %s has no dead letter %s", admin.ErrNotFound, s.Target, args[0])
			}
			return err
		},
	}
}

// some are the dead letters that a command is about: EVENT [NAME], or --all [NAME].
func some(s admin.Selection, args []string, all bool) (selection admin.Selection, name string, err error) {
	s.DeadLetters = true
	switch {
	case all && len(args) < 2:
		return s, first(args), nil
	case !all && len(args) > 0:
		s.Event = args[0]
		return s, first(args[1:]), nil
	}
	return s, "", errors.New("expected the id of an event, or --all; after it the webhook's name, unless --admin says where to ask")
}

func dropDeadLetters(receiver *receiverFlags, s *admin.Selection) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "drop EVENT|--all [NAME]",
		Short: "Forget one, or all",
		Args:  cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			selection, name, err := some(*s, args, all)
			if err != nil {
				return err
			}
			dropped := 0
			err = receiver.each(cmd.Context(), name, func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
				n, err := c.DropDeadLetters(ctx, w, selection)
				dropped += n
				return err
			})
			cmd.Printf("%d dropped\n", dropped)
			if err == nil && dropped == 0 && !all {
				err = fmt.Errorf("%w: no dead letter %s", admin.ErrNotFound, selection.Event)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

func replayDeadLetters(receiver *receiverFlags, s *admin.Selection) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "replay EVENT|--all [NAME]",
		Short: "Hand one, or all, to their targets again",
		Args:  cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			selection, name, err := some(*s, args, all)
			if err != nil {
				return err
			}
			return replay(cmd, receiver, name, selection)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

func replayCommand() *cobra.Command {
	var receiver receiverFlags
	var s admin.Selection
	var from, to string
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
			return replay(cmd, &receiver, first(args), s)
		},
	}
	receiver.add(cmd)
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
func replay(cmd *cobra.Command, receiver *receiverFlags, name string, s admin.Selection) error {
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
		return nil
	})
	if err == nil && events == 0 {
		err = fmt.Errorf("%w: no event to replay: those that a target does not have yet are on their way", admin.ErrNotFound)
	}
	return err
}
