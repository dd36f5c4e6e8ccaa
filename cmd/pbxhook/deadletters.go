package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

func deadLettersCommand() *cobra.Command {
	var receiver receiverFlags
	var s admin.Selection
	var output outputFlag
	var limit int
	cmd := &cobra.Command{
		Use:   "dead-letters [NAME] [-n NAMESPACE | --admin URL]",
		Short: "List the events that were given up for a target",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
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
			return output.write(cmd.OutOrStdout(), letters, func(w io.Writer) { deadLetterTable(w, letters) })
		},
	}
	receiver.add(cmd)
	output.add(cmd)
	cmd.PersistentFlags().StringVar(&s.Target, "target", "", "one target (default: all)")
	cmd.Flags().StringVar(&s.Call, "call", "", "events of one call")
	cmd.Flags().IntVar(&limit, "limit", 1000, "how many to list of each webhook, at most")
	cmd.AddCommand(showDeadLetter(&receiver, &s), replayDeadLetters(&receiver, &s), dropDeadLetters(&receiver, &s))
	return cmd
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func deadLetterTable(w io.Writer, letters []admin.DeadLetter) {
	line(w, "WEBHOOK\tTARGET\tEVENT\tCALL\tATTEMPTS\tSTATUS\tGIVEN UP\tREASON")
	for _, l := range letters {
		line(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s", l.Webhook, l.Target, l.ID, l.CallID, l.Attempts, l.Status, l.Time.Format(time.RFC3339), l.Reason)
	}
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
	var agreement consent
	cmd := &cobra.Command{
		Use:     "drop EVENT|--all [NAME]",
		Short:   "Delete one, or all, for good",
		Long:    "Delete one, or all, for good. It says how many of which targets, and asks.",
		Example: "  pbxhook dead-letters drop --all --target crm -n crm callcenter",
		Args:    cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			selection, name, err := some(*s, args, all)
			if err != nil {
				return err
			}
			return drop(cmd, receiver, name, selection, &agreement)
		},
	}
	agreement.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

// drop says what it would do, asks, and deletes dead letters.
func drop(cmd *cobra.Command, receiver *receiverFlags, name string, s admin.Selection, agreement *consent) error {
	ctx := cmd.Context()
	client, webhooks, end, err := receiver.connect(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	plans, total, err := plan(ctx, webhooks, func(w admin.Webhook) (map[string]int64, time.Time, error) {
		answer, err := client.DropDeadLetters(ctx, w, admin.DropRequest{Selection: s, DryRun: true})
		return answer.Targets, answer.GivenUpTo, err
	})
	if err != nil {
		return err
	}
	if total == 0 && s.Event != "" {
		return fmt.Errorf("%w: no dead letter %s", admin.ErrNotFound, s.Event)
	}
	if ok, err := agreement.agreed(cmd, plans, total, "%s: dead letters of %[3]s: %[2]s", "Drop"); !ok {
		return err
	}
	dropped := int64(0)
	for _, p := range plans {
		if len(p.targets) == 0 {
			continue
		}
		s.GivenUpTo = p.givenUpTo
		answer, err := client.DropDeadLetters(ctx, p.webhook, admin.DropRequest{Selection: s})
		if err != nil {
			return err
		}
		dropped += answer.Dropped
	}
	cmd.Printf("%d dropped\n", dropped)
	return nil
}

func replayDeadLetters(receiver *receiverFlags, s *admin.Selection) *cobra.Command {
	var all bool
	var r replayFlags
	cmd := &cobra.Command{
		Use:     "replay EVENT|--all [NAME]",
		Short:   "Hand one, or all, to their targets again",
		Long:    "Hand one, or all, to their targets again. It says how many go to which targets, and asks.",
		Example: "  pbxhook dead-letters replay --all --target crm -n crm callcenter",
		Args:    cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			selection, name, err := some(*s, args, all)
			if err != nil {
				return err
			}
			return replay(cmd, receiver, name, selection, &r)
		},
	}
	r.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}
