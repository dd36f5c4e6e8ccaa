package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// outputFlag is how an answer is written: as a table for people, or for programs.
type outputFlag string

func (o *outputFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", "", "json, yaml, or a table")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // it was added a line above
}

// check says early what cannot be written.
func (o outputFlag) check() error {
	if o != "" && o != "json" && o != "yaml" {
		return fmt.Errorf("-o: expected json or yaml, got %q", string(o))
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
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	table(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
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

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
