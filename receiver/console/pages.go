package console

import (
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
)

// maxColumns is how many columns a ladder has at most: PBX, pbxhook, targets, and some that were removed.
const maxColumns = 64

var words = map[admin.Outcome]string{
	admin.NotSent: "not sent", admin.Delivered: "delivered", admin.Pending: "waits", admin.Retrying: "is tried again", admin.DeadLettered: "given up",
}

// pages are the templates, each with the frame that all have.
func pages() map[string]*template.Template {
	functions := template.FuncMap{
		"title": title, "callLink": callLink,
		"number":  maskedNumber,
		"masked":  maskedText,
		"outcome": func(o admin.Outcome) string { return words[o] },
		"utc":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") },
		"events":  func(n int64) string { return events(int(n)) },
		"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"isoOf":   func(t *metav1.Time) string { return t.UTC().Format(time.RFC3339) },
		"utcOf":   func(t *metav1.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") },
		"clock":   func(t time.Time) string { return t.UTC().Format("15:04:05.000Z") },
		"since":   since,
		"mib":     func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) },
		"share":   func(n, of int64) int64 { return 100 * n / max(of, 1) },
		"summary": summary,
		"letters": func(webhook, target string) string {
			return "/dead-letters?" + url.Values{"webhook": {webhook}, "target": {target}}.Encode()
		},
		"eventLink": func(webhook, id string) string {
			return "/call?" + url.Values{"webhook": {webhook}, "event": {id}}.Encode()
		},
		"columns": func(n int) int { return min(n, maxColumns) },
		"list":    func(all ...any) []any { return all },
		"text":    func(s any) string { return fmt.Sprint(s) },
	}
	all := map[string]*template.Template{}
	for _, name := range []string{"calls", "call", "targets", "dead-letters", "replays", "rejected", "error"} {
		all[name] = template.Must(template.New(name).Funcs(functions).ParseFS(files, "templates/layout.html", "templates/"+name+".html"))
	}
	return all
}

// style is the style sheet, with the widths of ladders: an attribute of an element could not say them, since the
// policy lets no style stand in a page.
func style() []byte {
	sheet, err := files.ReadFile("assets/console.css")
	if err != nil {
		panic(err) // it is built in
	}
	for n := columnTargets; n <= maxColumns; n++ {
		sheet = fmt.Appendf(sheet, ".columns-%d{min-width:%dem}\n", n, n*6)
	}
	return sheet
}

// since says how long after the first event something was.
func since(d time.Duration) string {
	if d < 0 {
		return "−" + (-d).String()
	}
	return "+" + d.String()
}

// summary says in short which events a call had: the same one after the other once.
func summary(all []event.Type) string {
	var names []string
	for _, one := range slices.Compact(slices.Clone(all)) {
		names = append(names, strings.TrimPrefix(string(one), "call."))
	}
	if len(names) > 6 {
		names = append(append(names[:3:3], "…"), names[len(names)-2:]...)
	}
	return strings.Join(names, " → ")
}
