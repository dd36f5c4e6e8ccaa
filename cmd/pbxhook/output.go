package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/spelling"
)

// outputFlag is how an answer is written: as a table for people, or for programs.
type outputFlag string

func (o *outputFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", "", "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // it was added a line above
}

// check says early what cannot be written.
func (o outputFlag) check() error {
	if o != "" && o != "table" && o != "json" && o != "yaml" {
		return fmt.Errorf("-o: expected json or yaml (or table, the default), got %q", string(o))
	}
	return nil
}

// write writes a value, or the table of it.
func (o outputFlag) write(out io.Writer, value any, table func(w io.Writer)) error {
	switch o {
	case "json":
		return printJSON(out, value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return fmt.Errorf("write the answer: %w", err)
		}
		_, err = out.Write(text)
		return err
	}
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	table(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if _, err := out.Write(paint(out, text.Bytes())); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// The colours of a table's words, as terminals know them (ECMA-48, SGR).
const (
	red, green, yellow = "31", "32", "33"
)

var colours = map[string]string{
	"False": red, "false": red, "deadLettered": red,
	"True": green, "true": green, "delivered": green,
	"Unknown": yellow, "unknown": yellow, "pending": yellow, "retrying": yellow,
}

// cell is a word of a table that has a colour: a whole cell, or the outcome behind a target's name.
var cell = regexp.MustCompile(`(^|  |=)(False|false|True|true|Unknown|unknown|deadLettered|delivered|pending|retrying)(  |\n| |$)`)

// paint colours the words of a table that say how something is, on a terminal alone (https://no-color.org).
func paint(out io.Writer, table []byte) []byte {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(file.Fd())) {
		return table
	}
	return colour(table)
}

func colour(table []byte) []byte {
	return cell.ReplaceAllFunc(table, func(match []byte) []byte {
		parts := cell.FindSubmatch(match)
		return fmt.Appendf(nil, "%s\x1b[%sm%s\x1b[0m%s", parts[1], colours[string(parts[2])], parts[2], parts[3])
	})
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// line writes a line of a table, or of what is told as it happens.
func line(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...) // who reads no more ends the command by it
}

const progressPause = 200 * time.Millisecond

// progress tells how far long work is, on a terminal, until stop is called.
func progress(cmd *cobra.Command, how func() string) (stop func()) {
	file, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressPause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = fmt.Fprintf(file, "\r\033[K%s", how())
			case <-end:
				_, _ = fmt.Fprint(file, "\r\033[K")
				return
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// stamp is a time as tables show it: local, with its zone.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

// oneOf refuses the value of a flag that is not one of those known; none is all.
func oneOf(flag, value string, known []string) error {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	return fmt.Errorf("%s: expected one of %s, got %q%s", flag, strings.Join(known, ", "), value, spelling.DidYouMean(value, known))
}

// texts returns values of a kind of text as texts.
func texts[T ~string](values []T) []string {
	all := make([]string, len(values))
	for i, value := range values {
		all[i] = string(value)
	}
	return all
}
