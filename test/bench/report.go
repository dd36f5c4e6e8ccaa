package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"text/template"
)

// machine says where the run was.
func machine() string {
	name, memory := "unknown processor", "unknown memory"
	if file, err := os.Open("/proc/cpuinfo"); err == nil {
		defer func() { _ = file.Close() }() // it was read only
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				name = strings.TrimSpace(value)
			}
		}
	}
	var kib float64
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		if _, err := fmt.Sscanf(string(data), "MemTotal: %f kB", &kib); err == nil {
			memory = fmt.Sprintf("%.0f GiB", kib/(1<<20))
		}
	}
	return fmt.Sprintf("%d processors (%s), %s of memory, %s, %s", runtime.NumCPU(), name, memory, runtime.GOOS, runtime.Version())
}

func printTable(rows []Row) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "system\taccepted/s\tof rig\tof nginx\tdelivered/s\tof rig\tof nginx\taccept p50\tp99 ms\tend to end p50\tp99 ms\tof nginx\tCPU µs\tMiB\tlost\trepeated\t")
	for _, r := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%d\t%d\t\n", r.System, r.AcceptedPerSecond, r.OfRigAccepted, r.OfNginxAccepted,
			r.DeliveredPerSecond, r.OfRigDelivered, r.OfNginxDelivered, r.AcceptP50Ms, r.AcceptP99Ms, r.EndToEndP50Ms, r.EndToEndP99Ms, r.OfNginxP99, r.CPUMicrosPerEvent, r.RSSMiB, r.Lost, r.Repeated)
		if r.System == pbxhook && r.OfBentoAccepted > 0 {
			defer fmt.Printf("pbxhook of bento + NATS: %.2f accepted, %.2f delivered\n", r.OfBentoAccepted, r.OfBentoDelivered)
		}
	}
	return w.Flush()
}

//go:embed performance.md.tmpl
var documentText string

// document writes the result for people.
func document(name string, r Result) error {
	t, err := template.New(name).Funcs(template.FuncMap{
		"labels": func(s Series) string {
			var all []string
			for _, p := range s.Points {
				all = append(all, `"`+p.Label+`"`)
			}
			return strings.Join(all, ", ")
		},
		"costs": func(s Series) string {
			var all []string
			for _, p := range s.Points {
				all = append(all, fmt.Sprintf("%.0f", p.CPUMicrosPerEvent))
			}
			return strings.Join(all, ", ")
		},
		"row": func(name string) Row {
			for _, row := range r.Rows {
				if row.System == name {
					return row
				}
			}
			return Row{}
		},
	}).Parse(documentText)
	if err != nil {
		return fmt.Errorf("read the document's template: %w", err)
	}
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	if err := t.Execute(file, r); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	return file.Close()
}
