package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// consent is whether a command that acts on more than one event may do so.
type consent struct {
	yes, dryRun bool
}

func (c *consent) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.MarkFlagsMutuallyExclusive("yes", "dry-run")
}

// isTerminal reports whether somebody can be asked; tests answer in their place.
var isTerminal = func(in io.Reader) bool {
	file, ok := in.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// agreed reports whether a command is to do what it has planned: about one event it does not ask. format says it of
// a webhook, a number of events and a target.
func (c *consent) agreed(cmd *cobra.Command, plans []planned, total int64, format, verb string) (bool, error) {
	return c.given(cmd, total > 1, verb, counted(total), func(w io.Writer) {
		for i := range plans {
			plans[i].tell(w, format)
		}
	})
}

// given reports whether a command is to do what tell says. It asks where that is needed, as in "Replay 12 events?".
func (c *consent) given(cmd *cobra.Command, needed bool, verb, what string, tell func(io.Writer)) (bool, error) {
	switch {
	case c.dryRun:
		tell(cmd.OutOrStdout())
		cmd.PrintErrln("nothing was done (--dry-run)")
		return false, nil
	case c.yes || !needed:
		return true, nil
	}
	tell(cmd.ErrOrStderr())
	if !isTerminal(cmd.InOrStdin()) {
		return false, fmt.Errorf("%s of %s: expected --yes, as nobody can be asked here (standard input is not a terminal), or --dry-run; nothing was done", strings.ToLower(verb), what)
	}
	cmd.PrintErrf("%s %s? [y/N] ", verb, what)
	answer, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 64)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
		return true, nil
	}
	return false, errors.New("nothing was done")
}

// sorted returns the keys of a map in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
