package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/expression"
	"github.com/pbxhook/pbxhook/receiver/filter"
)

func checkCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "check -f FILE...",
		Short: "Judge manifests as the API server and the receiver will",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			judge, err := validation.New()
			if err != nil {
				return err
			}
			manifests, err := loader(judge, files)()
			if err != nil {
				return err
			}
			bad := false
			for _, w := range manifests.Webhooks {
				findings, notes := examine(w, manifests)
				id := w.Namespace + "/" + w.Name
				for _, finding := range findings {
					bad = true
					cmd.Printf("%s: %s\n", id, finding)
				}
				for _, note := range notes {
					cmd.Printf("%s: note: %s\n", id, note)
				}
				if len(findings) == 0 {
					cmd.Printf("%s: ok\n", id)
				}
			}
			if bad {
				return errors.New("not all manifests are good")
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or folder of manifests; may be given several times")
	if err := cmd.MarkFlagRequired("filename"); err != nil {
		panic(err) // the flag is named a few lines above
	}
	return cmd
}

// examine finds what only the receiver can know. Findings are wrong; notes may be right elsewhere.
func examine(w *v1alpha1.PBXWebhook, manifests *config.Manifests) (findings, notes []string) {
	if _, err := time.LoadLocation(w.Spec.TimeZone); err != nil {
		findings = append(findings, fmt.Sprintf("spec.timeZone: expected an IANA time zone such as Asia/Tehran, got %q", w.Spec.TimeZone))
	}
	if _, err := filter.Compile(&w.Spec); err != nil {
		findings = append(findings, fmt.Sprintf("spec.%v", err))
	}
	for i := range w.Spec.Targets {
		t := &w.Spec.Targets[i]
		if _, err := filter.CompileTarget(t); err != nil {
			findings = append(findings, fmt.Sprintf("spec.targets[%s].%v", t.Name, err))
		}
		if t.Format == v1alpha1.FormatTemplate {
			if _, err := expression.CompileTemplate(t.Template); err != nil {
				findings = append(findings, fmt.Sprintf("spec.targets[%s].template: %v", t.Name, err))
			}
		}
	}
	for _, ref := range w.Spec.References() {
		values, known := manifests.Values(ref.Kind, w.Namespace, ref.Name)
		if !known {
			notes = append(notes, fmt.Sprintf("%s: %s %s is not in these files: it must be in the cluster", ref.Field, ref.Kind, ref.Name))
			continue
		}
		if err := ref.Check(values); err != nil {
			findings = append(findings, fmt.Sprintf("%s: %v", ref.Field, err))
		}
	}
	return findings, notes
}
