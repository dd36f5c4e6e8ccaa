package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

func journalCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "journal", Short: "Look at a journal's files, copy what is readable of damaged ones, and reset damaged cursors"}
	cmd.AddCommand(journalCheck(), journalRepair(), journalResetCursor())
	return cmd
}

func journalResetCursor() *cobra.Command {
	var receiver receiverFlags
	var asked consent
	var target string
	cmd := &cobra.Command{
		Use:   "reset-cursor [NAME] [-n NAMESPACE | --admin URL]",
		Short: "Have targets whose cursors in a journal on NATS are damaged begin again at the first stored event",
		Long: "Have targets whose cursors in a journal on NATS are damaged begin again at the first stored event of the\n" +
			"partition. They get again what they have already, under the same ids. A cursor that can be read is left alone.",
		Example: "  pbxhook journal reset-cursor -n crm callcenter --target crm",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return resetCursors(cmd, &receiver, first(args), admin.ResetRequest{Target: target}, &asked)
		},
	}
	receiver.add(cmd)
	asked.add(cmd)
	cmd.Flags().StringVar(&target, "target", "", "one target (default: all)")
	return cmd
}

// resetCursors says which cursors are damaged, asks, and resets them.
func resetCursors(cmd *cobra.Command, receiver *receiverFlags, name string, request admin.ResetRequest, asked *consent) error {
	ctx := cmd.Context()
	client, webhooks, end, err := receiver.connect(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	damaged := map[admin.Webhook]admin.Reset{}
	total := 0
	request.DryRun = true
	for _, w := range webhooks {
		if damaged[w], err = client.ResetCursors(ctx, w, request); err != nil {
			return err
		}
		total += len(damaged[w].Cursors)
	}
	if total == 0 {
		return fmt.Errorf("%w: no cursor is damaged", admin.ErrNotFound)
	}
	ok, err := asked.given(cmd, true, "Reset", fmt.Sprintf("%d %s", total, plural(total, "cursor", "cursors")), func(out io.Writer) {
		for _, w := range webhooks {
			tellCursors(out, w, damaged[w], "is damaged")
		}
	})
	if !ok {
		return err
	}
	request.DryRun = false
	for _, w := range webhooks {
		done, err := client.ResetCursors(ctx, w, request)
		if err != nil {
			return err
		}
		tellCursors(cmd.OutOrStdout(), w, done, "was reset")
	}
	return nil
}

func tellCursors(out io.Writer, w admin.Webhook, found admin.Reset, what string) {
	for _, c := range found.Cursors {
		line(out, "%s: the cursor of target %s in partition %d %s", w, c.Target, c.Partition, what)
	}
}

func journalCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a journal, journal.db and the journal.wal beside it, is whole; no receiver may have it open",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := journal.Check(args[0])
			describeJournal(cmd, &report)
			if err != nil {
				return err
			}
			switch {
			case len(report.Damage) > 0:
				return fmt.Errorf("the journal is damaged, and no receiver starts with it: pbxhook journal repair %s makes a copy of what is readable", args[0])
			case len(report.Reported) > 0:
				return errors.New("the journal is damaged: a receiver starts with it, reports that, and makes dead letters of events that cannot be read")
			}
			cmd.Println("the journal is whole")
			return nil
		},
	}
}

func journalRepair() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "repair FILE",
		Short: "Copy what is readable of journal.db and journal.wal, and say what is missing; the files stay as they are",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				to = args[0] + ".repaired"
			}
			report, err := journal.Repair(args[0], to)
			describeJournal(cmd, &report)
			if err != nil {
				return err
			}
			for _, lost := range report.Lost {
				cmd.Printf("missing: events %d to %d\n", lost.From, lost.To)
			}
			if report.LostTargets {
				cmd.Println("missing: how far a target was. It begins with new events: hand it the older ones with pbxhook replay --from")
			}
			cmd.Printf("copied to %s: while no receiver runs, put it in the place of %s and remove %s\n", to, args[0], journal.LogFile(args[0]))
			if len(report.Lost) > 0 || report.LostTargets {
				return errors.New("not everything could be read")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the copy (default: FILE.repaired)")
	return cmd
}

func describeJournal(cmd *cobra.Command, report *journal.Report) {
	cmd.Printf("%d events, %d targets, %d dead letters\n", report.Events+report.InLog, len(report.Targets), report.DeadLetters)
	for _, damage := range append(report.Damage, report.Reported...) {
		cmd.Printf("damaged: %s\n", damage)
	}
}
