// pbxhook is the command that people run: a receiver on this machine, PBXs to test with, and judges
// of manifests and payloads.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // for machines without zone files

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := root().ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil { // Ctrl-C is no error
		return
	}
	fmt.Fprintln(os.Stderr, "pbxhook:", err)
	os.Exit(1)
}

// version returns which build this is: its version or commit, and when that was made.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	text := info.Main.Version
	for _, part := range []string{settings["vcs.revision"], settings["vcs.time"], info.GoVersion} {
		if part != "" {
			text += " " + part
		}
	}
	if settings["vcs.modified"] == "true" {
		text += " (with uncommitted changes)"
	}
	return text
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "pbxhook",
		Short:         "Receive the webhooks of phone systems, keep them, and forward them in order",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetOut(os.Stdout)
	cmd.AddCommand(runCommand(), demoCommand(), sendCommand(), simulateCommand(), decodeCommand(), checkCommand(),
		statusCommand(), callsCommand(), tailCommand(), deadLettersCommand(), replayCommand(), consoleCommand(), journalCommand())
	if strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-") { // which kubectl finds as its own
		cmd.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl pbxhook"}
	}
	return cmd
}
