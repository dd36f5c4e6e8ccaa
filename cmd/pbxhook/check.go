package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/cmd/pbxhook/check"
)

func checkCommand() *cobra.Command {
	var options check.Options
	var output string
	cmd := &cobra.Command{
		Use:   "check -f FILE...",
		Short: "Judge manifests as the API server and the receiver will",
		Long: "Judge manifests as the API server and the receiver will: schema, rules, expressions, templates, and the\n" +
			"Secrets that they refer to. Every finding is a line with its place; warnings may be right elsewhere (a Secret\n" +
			"that is in the cluster alone). The exit status is 1 where there is an error.",
		Example: "  pbxhook check -f webhook.yaml\n" +
			"  kustomize build . | pbxhook check -f - -o json\n" +
			"  pbxhook check --local -f webhook.yaml   # for pbxhook run: targets on this machine are meant",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o: expected json, got %q", output)
			}
			judge, err := validation.New()
			if err != nil {
				return err
			}
			options.Stdin = cmd.InOrStdin()
			report, err := check.Examine(cmd.Context(), judge, options)
			if err != nil {
				return err
			}
			return printReport(cmd, report, output)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&options.Files, "filename", "f", nil, "file or folder of manifests, or - for standard input; may be given several times")
	flags.StringVarP(&output, "output", "o", "", "json, or lines")
	flags.BoolVar(&options.Local, "local", false, "the manifests are for pbxhook run: targets on this machine are meant")
	if err := cmd.MarkFlagRequired("filename"); err != nil {
		panic(err) // the flag is named a few lines above
	}
	return cmd
}

// printReport prints the findings, and fails where one is an error.
func printReport(cmd *cobra.Command, report *check.Report, output string) error {
	if output == "json" {
		findings := report.Findings
		if findings == nil {
			findings = []check.Finding{}
		}
		if err := printJSON(cmd.OutOrStdout(), findings); err != nil {
			return err
		}
	} else {
		for _, f := range report.Findings {
			line(cmd.OutOrStdout(), "%s", f)
		}
		for _, o := range report.Objects {
			if report.ErrorsOf(o) == 0 {
				line(cmd.OutOrStdout(), "%s: %s: ok", o.File, o.ID)
			}
		}
	}
	if n := report.Errors(); n > 0 {
		return fmt.Errorf("not all manifests are good: %d %s", n, plural(n, "error", "errors"))
	}
	return nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
