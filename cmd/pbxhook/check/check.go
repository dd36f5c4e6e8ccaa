// Package check examines manifests as the API server and the receiver will, and tells every finding with its place
// in the file. It must not know how findings are printed.
package check

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/spelling"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/expression"
	"github.com/pbxhook/pbxhook/receiver/filter"
)

// Severity says whether a finding is wrong anywhere, or may be right elsewhere.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that is wrong with a manifest, or may be.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`   // from 1; 0: the file as a whole
	Column   int      `json:"column,omitempty"` // in characters, from 1
	Object   string   `json:"object,omitempty"` // namespace/name of a PBXWebhook
	Field    string   `json:"field,omitempty"`
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
}

// String returns the finding as one line: file:line:column: severity: object: field: message.
func (f Finding) String() string {
	place := f.File
	if f.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d", f.File, f.Line, max(f.Column, 1))
	}
	parts := []string{place, string(f.Severity)}
	for _, part := range []string{f.Object, f.Field} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(append(parts, f.Message), ": ")
}

// Report is what was found in all files.
type Report struct {
	Findings []Finding // in the order of files, lines and columns
	Objects  []Object  // all PBXWebhooks, in the order in which they were read
}

// Object is a PBXWebhook that was examined.
type Object struct {
	File, ID string
}

// Errors returns how many findings are wrong anywhere.
func (r *Report) Errors() (n int) {
	for _, f := range r.Findings {
		if f.Severity == Error {
			n++
		}
	}
	return n
}

// ErrorsOf returns how many of them are about an object.
func (r *Report) ErrorsOf(o Object) (n int) {
	for _, f := range r.Findings {
		if f.Severity == Error && f.Object == o.ID {
			n++
		}
	}
	return n
}

// Options say what is examined.
type Options struct {
	Files []string  // files and folders; "-" is Stdin
	Stdin io.Reader // read at most once
	// Local says that the manifests are for `pbxhook run`: targets on this machine are meant.
	Local bool
}

// Examine examines all documents of all files. An error says that a file could not be read.
func Examine(ctx context.Context, judge *validation.Validator, o Options) (*Report, error) {
	e := &examination{judge: judge, local: o.Local, manifests: config.New(), report: &Report{}}
	for _, path := range o.Files {
		if path == "-" {
			text, err := io.ReadAll(io.LimitReader(o.Stdin, config.MaxFile+1))
			if err == nil && len(text) > config.MaxFile {
				err = fmt.Errorf("expected at most %d MiB", config.MaxFile>>20)
			}
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			e.read("standard input", text)
			continue
		}
		files, err := config.Files([]string{path})
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := config.ReadFile(file)
			if err != nil {
				return nil, err
			}
			e.read(file, text)
		}
	}
	for _, d := range e.webhooks { // once all Secrets are known
		e.examine(ctx, d)
	}
	if len(e.report.Objects) == 0 && e.report.Errors() == 0 {
		return nil, fmt.Errorf("expected a PBXWebhook in %s, got none", strings.Join(o.Files, ", "))
	}
	slices.SortStableFunc(e.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(e.order[a.File], e.order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e.report, nil
}

// examination is one run of Examine.
type examination struct {
	judge     *validation.Validator
	local     bool
	manifests *config.Manifests // Secrets and ConfigMaps
	webhooks  []*document
	order     map[string]int // of files
	report    *Report
}

func (e *examination) find(d *document, object, field string, severity Severity, format string, args ...any) {
	line, column := d.place(field)
	f := Finding{File: d.file, Line: line, Column: column, Object: object, Field: field, Severity: severity, Message: fmt.Sprintf(format, args...)}
	if !slices.Contains(e.report.Findings, f) { // the schema may have said it
		e.report.Findings = append(e.report.Findings, f)
	}
}

func (e *examination) findSyntax(d *document, err *config.SyntaxError) {
	e.report.Findings = append(e.report.Findings, Finding{File: d.file, Line: err.Line, Column: 1, Severity: Error, Message: err.Message})
}

// read takes up the documents of a file: Secrets and ConfigMaps at once, webhooks for later.
func (e *examination) read(file string, text []byte) {
	if e.order == nil {
		e.order = map[string]int{}
	}
	e.order[file] = len(e.order)
	documents, err := split(file, text)
	if err != nil {
		e.report.Findings = append(e.report.Findings, Finding{File: file, Severity: Error, Message: err.Error()})
	}
	for _, d := range documents {
		if err := d.parse(); err != nil {
			e.findSyntax(d, err)
			continue
		}
		e.sort(d)
	}
}

// sort decides by its kind what becomes of a document.
func (e *examination) sort(d *document) {
	kind, apiVersion := d.textOf("kind"), d.textOf("apiVersion")
	switch {
	case kind == "" || apiVersion == "":
		e.find(d, "", "", Error, "expected a Kubernetes object with apiVersion and kind")
	case kind == v1alpha1.Kind && apiVersion == v1alpha1.GroupVersion.String():
		e.webhooks = append(e.webhooks, d)
	case kind == v1alpha1.Kind:
		e.find(d, "", "apiVersion", Error, "expected %s, got %s", v1alpha1.GroupVersion, apiVersion)
	case strings.HasPrefix(apiVersion, v1alpha1.GroupVersion.Group+"/"):
		e.find(d, "", "kind", Error, "expected %s, got %s%s", v1alpha1.Kind, kind, spelling.DidYouMean(kind, []string{v1alpha1.Kind}))
	case apiVersion == "v1" && (kind == "Secret" || kind == "ConfigMap"):
		if err := e.manifests.Add(d.file, d.text); err != nil {
			e.find(d, "", "", Error, "%v", err)
		}
	default:
		e.find(d, "", "kind", Warning, "%s of %s is not checked: only %s, Secret and ConfigMap are known here", kind, apiVersion, v1alpha1.Kind)
	}
}

// textOf returns the text of a field of the object itself.
func (d *document) textOf(field string) string {
	if d.root == nil {
		return ""
	}
	if _, value := child(d.root, field); value != nil {
		return value.Value
	}
	return ""
}

// examine judges one webhook: by schema and rules, and by what only the receiver can know.
func (e *examination) examine(ctx context.Context, d *document) {
	object := &unstructured.Unstructured{}
	data, err := sigsyaml.YAMLToJSONStrict(d.text)
	if err != nil {
		e.findSyntax(d, d.syntax(err))
		return
	}
	if err := object.UnmarshalJSON(data); err != nil {
		e.find(d, "", "", Error, "expected a Kubernetes object: %v", err)
		return
	}
	namespace := cmp.Or(object.GetNamespace(), "default")
	o := Object{File: d.file, ID: namespace + "/" + object.GetName()}
	if slices.ContainsFunc(e.report.Objects, func(other Object) bool { return other.ID == o.ID }) {
		e.find(d, o.ID, "metadata.name", Error, "this PBXWebhook is there twice: rename or remove one")
		return
	}
	e.report.Objects = append(e.report.Objects, o)

	webhook, errs := e.judge.Create(ctx, object)
	for _, f := range e.judge.Explain(object, errs) {
		e.find(d, o.ID, f.Field, Error, "%s", f.Message)
	}
	if webhook == nil { // some of it may be examined all the same
		webhook = &v1alpha1.PBXWebhook{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, webhook); err != nil {
			return // the schema has said why
		}
	}
	webhook.Namespace = namespace
	e.examineSpec(d, o.ID, webhook)
}

// examineSpec finds what only the receiver can know.
func (e *examination) examineSpec(d *document, id string, w *v1alpha1.PBXWebhook) {
	if _, err := time.LoadLocation(w.Spec.TimeZone); err != nil {
		e.find(d, id, "spec.timeZone", Error, "expected an IANA time zone such as Asia/Tehran, got %q", w.Spec.TimeZone)
	}
	if _, err := filter.Compile(&w.Spec); err != nil {
		e.findNested(d, id, "spec", err)
	}
	for i := range w.Spec.Targets {
		t := &w.Spec.Targets[i]
		field := fmt.Sprintf("spec.targets[%s]", t.Name)
		if _, err := filter.CompileTarget(t); err != nil {
			e.findNested(d, id, field, err)
		}
		if t.Format == v1alpha1.FormatTemplate && t.Template != "" {
			if _, err := expression.CompileTemplate(t.Template); err != nil {
				e.find(d, id, field+".template", Error, "%v", err)
			} else if strings.Contains(t.Template, "{{") {
				e.find(d, id, field+".template", Warning, "{{ }} means nothing here and is sent as it stands: a template is CEL, such as {\"phone\": event.call.from.number}")
			}
		}
		if host := unreachableHost(t.URL); host != "" && !e.local {
			e.find(d, id, field+".url", Warning, "a receiver in a cluster does not reach %s: name a Service (service: {name: …, port: …}), or give --local where `pbxhook run` is meant", host)
		}
	}
	for _, ref := range w.Spec.References() {
		values, known := e.manifests.Values(ref.Kind, w.Namespace, ref.Name)
		if !known {
			e.find(d, id, ref.Field, Warning, "%s %s is not in these files: it must be in the cluster", ref.Kind, ref.Name)
			continue
		}
		if err := ref.Check(values); err != nil {
			e.find(d, id, ref.Field, Error, "%v", err)
		}
	}
}

// findNested finds an error that begins with the rest of its field's path.
func (e *examination) findNested(d *document, id, parent string, err error) {
	field, message, ok := strings.Cut(err.Error(), ": ")
	if !ok {
		field, message = "", err.Error()
	}
	e.find(d, id, strings.TrimSuffix(parent+"."+field, "."), Error, "%s", message)
}

// unreachableHost returns the host of a target that receivers in a cluster refuse to reach, else "".
func unreachableHost(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return host
	}
	if address, err := netip.ParseAddr(host); err == nil && !(deliver.Networks{}).Allows(address) {
		return host
	}
	return ""
}
