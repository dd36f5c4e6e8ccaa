package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/admin"
)

// webhookStatus is what Kubernetes and the receiver say of a webhook.
type webhookStatus struct {
	admin.Status
	Conditions []metav1.Condition `json:"conditions,omitempty"` // of a webhook in a cluster
	// Unreachable says why the receiver did not tell.
	Unreachable string `json:"unreachable,omitempty"`
}

func statusCommand() *cobra.Command {
	var receiver receiverFlags
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "status [NAME] [-n NAMESPACE | --admin URL]",
		Short: "Say how a webhook fares: conditions, events, journal, targets",
		Long: "Say how a webhook fares: conditions, events, journal, targets. The exit status is 0 when all is well,\n" +
			"and 1 when a condition or a target is not.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			all, err := receiver.statuses(cmd.Context(), first(args))
			if err != nil {
				return err
			}
			if err := output.write(cmd.OutOrStdout(), all, func(w io.Writer) { statusTable(w, all) }); err != nil {
				return err
			}
			if trouble := unwell(all); trouble != "" {
				return errors.New(trouble)
			}
			return nil
		},
	}
	receiver.add(cmd)
	output.add(cmd)
	return cmd
}

// statuses asks for the webhook that is meant or, of a local receiver, for all.
func (f *receiverFlags) statuses(ctx context.Context, name string) ([]webhookStatus, error) {
	all := []webhookStatus{}
	name, err := f.name(name)
	if err != nil {
		return nil, err
	}
	var object *webhookStatus
	if f.admin == "" && name != "" {
		conditions, err := f.conditions(ctx, name)
		if err != nil {
			return nil, err
		}
		object = &webhookStatus{Conditions: conditions, Status: admin.Status{Webhook: f.namespace + "/" + name}}
	}
	client, webhooks, end, err := f.connect(ctx, name)
	if err != nil && object != nil { // what Kubernetes says is worth telling without the rest
		object.Unreachable = err.Error()
		return append(all, *object), nil
	}
	if err != nil {
		return nil, err
	}
	defer end()
	found, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		if !slices.ContainsFunc(webhooks, func(w admin.Webhook) bool { return w.String() == s.Webhook }) {
			continue
		}
		one := webhookStatus{Status: s}
		if object != nil {
			one.Conditions = object.Conditions
		}
		all = append(all, one)
	}
	return all, nil
}

func statusTable(w io.Writer, all []webhookStatus) {
	for i, s := range all {
		if i > 0 {
			line(w, "")
		}
		line(w, "WEBHOOK\t%s\t%s", s.Webhook, s.Provider)
		for _, c := range s.Conditions {
			line(w, "%s\t%s\t%s", c.Type, c.Status, strings.TrimSpace(c.Reason+" "+c.Message))
		}
		if s.Unreachable != "" {
			line(w, "receiver\tunknown\t%s", s.Unreachable)
			continue
		}
		last := stampOr(s.Events.LastReceivedTime, "never")
		line(w, "events\t%d received\tlast %s; %d could not be decoded, %d requests rejected", s.Events.Received, last, s.Events.Unparsed, s.Events.Rejected)
		for _, text := range byName(s.Events.ByName) {
			line(w, "%s", text)
		}
		if n := s.Events.URLChecks; n > 0 {
			line(w, "URL checks\t%d\tlast %s", n, stampOr(s.Events.LastURLCheckTime, "unknown"))
		}
		line(w, "journal\t%d events\t%.1f of %.1f MiB; %d dead letters", s.Journal.Events, mib(s.Journal.Bytes), mib(s.Journal.MaxBytes), s.Journal.DeadLetters)
		if s.Journal.Warning != "" {
			line(w, "\tevents are accepted, but\t%s", s.Journal.Warning)
		}
		if s.Journal.Problem != "" {
			line(w, "\tevents are answered 503\t%s", s.Journal.Problem)
		}
		line(w, "\nTARGET\tHEALTHY\tPENDING\tPER MINUTE\tDELIVERED\tGIVEN UP\tLAST ERROR")
		for _, t := range s.Targets {
			givenUp := strconv.FormatInt(t.DeadLettered, 10)
			if t.Evicted > 0 {
				givenUp += fmt.Sprintf(" (%d evicted)", t.Evicted)
			}
			line(w, "%s\t%t\t%d\t%d\t%d\t%s\t%s", t.Name, t.Healthy, t.Pending, t.PerMinute, t.Delivered, givenUp, t.LastError)
		}
	}
}

// byName returns a row for each name under which events came, and one with the names that never came.
func byName(counts []v1alpha1.EventCount) (rows []string) {
	var never []string
	for _, c := range counts {
		if c.Count == 0 {
			never = append(never, c.Name)
			continue
		}
		last := ""
		if c.LastReceivedTime != nil {
			last = "last " + stamp(c.LastReceivedTime.Time)
		}
		rows = append(rows, fmt.Sprintf("  %s\t%d received\t%s", c.Name, c.Count, last))
	}
	if len(never) > 0 {
		rows = append(rows, "  never came\t\t"+strings.Join(never, ", "))
	}
	return rows
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// unwell names the first thing that is not as it should be.
func unwell(all []webhookStatus) string {
	for _, s := range all {
		for _, c := range s.Conditions {
			bad := c.Status == metav1.ConditionFalse && (c.Type == "Ready" || c.Type == "TargetsHealthy")
			if bad || c.Status == metav1.ConditionTrue && c.Type == "Stalled" {
				return fmt.Sprintf("%s: %s: %s", s.Webhook, c.Type, c.Message)
			}
		}
		if s.Unreachable != "" {
			return fmt.Sprintf("%s: the receiver was not reached", s.Webhook)
		}
		if s.Journal.Problem != "" {
			return fmt.Sprintf("%s: events are answered 503: %s", s.Webhook, s.Journal.Problem)
		}
		for _, t := range s.Targets {
			if !t.Healthy && !strings.HasPrefix(t.LastError, "removed") {
				return fmt.Sprintf("%s: target %s: %s", s.Webhook, t.Name, t.LastError)
			}
		}
	}
	return ""
}

// stampOr returns a time for people, or what to say where there is none.
func stampOr(t *metav1.Time, none string) string {
	if t == nil {
		return none
	}
	return stamp(t.Time)
}
