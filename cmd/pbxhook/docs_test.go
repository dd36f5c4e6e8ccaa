package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/golden"
)

// TestCommandsAreDocumented: the reference page is what the commands say of themselves.
func TestCommandsAreDocumented(t *testing.T) {
	var page bytes.Buffer
	page.WriteString("<!-- written by go test ./cmd/pbxhook -run Documented -update; the text is in cmd/pbxhook -->\n# Commands\n\nThe program is `pbxhook`; linked as `kubectl-pbxhook` into the `PATH`, `kubectl pbxhook` is the same. `pbxhook completion --help` says how a shell completes it.\n")
	var write func(cmd *cobra.Command)
	write = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if !sub.IsAvailableCommand() || sub.Name() == "completion" || sub.Name() == "help" {
				continue
			}
			sub.DisableAutoGenTag = true
			var text bytes.Buffer
			require.NoError(t, doc.GenMarkdownCustom(sub, &text, func(string) string { return "" }))
			body, _, _ := strings.Cut(text.String(), "### SEE ALSO")
			page.WriteString("\n" + strings.TrimSpace(body) + "\n")
			write(sub)
		}
	}
	cmd := root()
	cmd.InitDefaultHelpFlag()
	write(cmd)
	golden.File(t, "../../docs/reference/commands.md", page.Bytes())
}
