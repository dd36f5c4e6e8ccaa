// pbxhook is the command that people run: a receiver on this machine, PBXs to test with, and judges
// of manifests and payloads.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	_ "time/tzdata" // for machines without zone files

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pbxhook:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "pbxhook",
		Short:         "Receive the webhooks of phone systems, keep them, and forward them in order",
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
