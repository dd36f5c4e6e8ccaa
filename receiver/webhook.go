package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/expression"
	"github.com/pbxhook/pbxhook/receiver/filter"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/receiver/render"
)

// maxRemoved is how many removed targets the status shows.
const maxRemoved = 16

// webhook is one webhook at work: its journal, and a dispatcher for each of its targets.
type webhook struct {
	namespace, name string
	options         Options
	log             *slog.Logger
	journal         journal.Journal

	mu      sync.Mutex
	targets map[string]*target
	ending  map[string]*target // removed, with attempts that may still be under way
	filter  *filter.Filter     // in force; nil before there was a good one
	plan    *plan              // in force
}

// target is one running dispatcher.
type target struct {
	dispatcher *dispatch.Dispatcher
	stop       context.CancelFunc
	done       chan struct{}
	deliverer  *deliver.Deliverer // nil while the target has a problem
	filter     *filter.Target     // in force; nil before there was a good one
	template   *expression.Template
	unsure     *atomic.Int64 // events that passed because no expression could tell
}

// plan is what a manifest asks for, checked as a whole before anything of it is put into force.
type plan struct {
	manifest  *v1alpha1.PBXWebhook
	ingest    ingest.Webhook
	filter    *filter.Filter
	filterErr error // its expression does not compile
	targets   []targetPlan
}

type targetPlan struct {
	spec      v1alpha1.Target
	url       string
	policy    dispatch.Policy
	deliverer *deliver.Deliverer
	filter    *filter.Target
	filterErr error // its expression does not compile
	template  *expression.Template
	// templateErr says that its template does not compile.
	templateErr error
}

// planFor checks a manifest. Trouble of one target becomes that target's problem alone.
func planFor(manifest *v1alpha1.PBXWebhook, values *config.Manifests, options Options) (*plan, error) {
	spec := &manifest.Spec
	id := manifest.Namespace + "/" + manifest.Name
	if spec.Journal.NATS != nil {
		return nil, fmt.Errorf("PBXWebhook %s: journal.nats is not implemented in this version: use journal.embedded", id)
	}
	location := time.UTC
	if spec.TimeZone != "" {
		var err error
		if location, err = time.LoadLocation(spec.TimeZone); err != nil {
			return nil, fmt.Errorf("PBXWebhook %s: timeZone: expected an IANA time zone such as Asia/Tehran, got %q", id, spec.TimeZone)
		}
	}
	credentials, err := credentialsFor(manifest, values)
	if err != nil {
		return nil, fmt.Errorf("PBXWebhook %s: %w", id, err)
	}
	p := &plan{manifest: manifest}
	p.filter, p.filterErr = filter.Compile(spec)
	p.ingest = ingest.Webhook{
		Namespace: manifest.Namespace, Name: manifest.Name, Provider: spec.Provider,
		Settings: wire.Settings{
			Version: spec.Version, Location: location, Region: spec.DefaultRegion,
			Fields: fieldKeys(spec.Fields), TokenName: spec.Credentials.TokenName,
		},
		Methods: methods(spec), Credentials: credentials,
	}
	for _, t := range spec.Targets {
		p.targets = append(p.targets, planTarget(manifest.Namespace, t, values, options))
	}
	return p, nil
}

func fieldKeys(fields map[string]v1alpha1.FieldKey) map[string]string {
	keys := map[string]string{}
	for canonical, key := range fields {
		keys[canonical] = string(key)
	}
	return keys
}

func methods(spec *v1alpha1.PBXWebhookSpec) []string {
	switch {
	case spec.Provider == v1alpha1.VoIPstudio:
		return []string{http.MethodPost}
	case spec.Method != "":
		return []string{string(spec.Method)}
	default:
		return []string{http.MethodGet, http.MethodPost}
	}
}

// credentialsFor reads the PBX's credentials. A Secret that is not there leaves them unknown, so
// that nobody is let in; it is not an error, because it heals by itself.
func credentialsFor(manifest *v1alpha1.PBXWebhook, values *config.Manifests) (*ingest.Credentials, error) {
	spec := manifest.Spec.Credentials
	switch {
	case spec.Anonymous != nil:
		return nil, nil
	case spec.SecretRef == nil:
		return nil, errors.New("credentials: expected exactly one of secretRef and anonymous, got none")
	}
	secret, _ := values.Values("Secret", manifest.Namespace, spec.SecretRef.Name)
	return CredentialsFrom(secret, spec.TokenName), nil
}

// CredentialsFrom reads credentials from a Secret's values. A password without a username, or the
// other way round, is none.
func CredentialsFrom(secret map[string][]byte, tokenName string) *ingest.Credentials {
	c := &ingest.Credentials{Username: string(secret["username"]), TokenName: tokenName}
	add := func(list *[]string, key string) {
		if value := string(secret[key]); value != "" {
			*list = append(*list, value)
		}
	}
	if c.Username != "" && len(secret["password"]) > 0 {
		add(&c.Passwords, "password")
		add(&c.Passwords, "previousPassword")
	}
	if len(secret["token"]) > 0 {
		add(&c.Tokens, "token")
		add(&c.Tokens, "previousToken")
	}
	return c
}

func planTarget(namespace string, spec v1alpha1.Target, values *config.Manifests, options Options) targetPlan {
	p := targetPlan{spec: spec, url: spec.URL, policy: policyFor(&spec)}
	if s := spec.Service; s != nil {
		p.url = fmt.Sprintf("http://%s.%s.svc:%d%s", s.Name, namespace, s.Port, s.Path)
	}
	p.filter, p.filterErr = filter.CompileTarget(&spec)
	if spec.Format == v1alpha1.FormatTemplate {
		if p.template, p.templateErr = expression.CompileTemplate(spec.Template); p.templateErr != nil {
			p.templateErr = fmt.Errorf("template: %w", p.templateErr)
		}
	}
	delivery, err := deliveryFor(namespace, &spec, values)
	if err == nil {
		delivery.Networks = options.Networks
		p.deliverer, err = deliver.New(delivery)
	}
	if err != nil {
		p.policy.Problem = err.Error()
	}
	return p
}

func duration(d *metav1.Duration, otherwise time.Duration) time.Duration {
	if d == nil || d.Duration <= 0 {
		return otherwise
	}
	return d.Duration
}

func policyFor(t *v1alpha1.Target) dispatch.Policy {
	p := dispatch.Policy{
		PerCall: t.Order != v1alpha1.OrderNone, Concurrency: int(max(t.Concurrency, 1)),
		MaxAge:       duration(t.Retry.MaxAge, 24*time.Hour),
		InitialDelay: duration(t.Retry.InitialDelay, time.Second),
		MaxDelay:     duration(t.Retry.MaxDelay, 5*time.Minute),
		MaxAttempts:  t.Retry.MaxAttempts,
	}
	if t.RateLimit != nil {
		p.RateLimit, p.Burst = rate.Limit(t.RateLimit.PerSecond), int(t.RateLimit.Burst)
		if p.Burst == 0 {
			p.Burst = int(t.RateLimit.PerSecond)
		}
	}
	return p
}

// deliveryFor resolves what a target's spec refers to.
func deliveryFor(namespace string, t *v1alpha1.Target, values *config.Manifests) (deliver.Options, error) {
	o := deliver.Options{Timeout: duration(t.Timeout, 10*time.Second), Connections: int(max(t.Concurrency, 1)), Headers: http.Header{}}
	secret := func(field string, ref v1alpha1.KeyReference) (string, error) {
		value, err := values.Value("Secret", namespace, ref)
		if err != nil {
			return "", fmt.Errorf("%s: %w", field, err)
		}
		return strings.TrimSpace(string(value)), nil
	}
	for _, h := range t.Headers {
		if h.Value != nil {
			o.Headers.Set(h.Name, *h.Value)
			continue
		}
		value, err := secret("headers", h.ValueFrom.SecretKeyRef)
		if err != nil {
			return o, err
		}
		o.Headers.Set(h.Name, value)
	}
	var err error
	if t.Auth != nil && t.Auth.Bearer != nil {
		if o.Bearer, err = secret("auth.bearer", t.Auth.Bearer.SecretKeyRef); err != nil {
			return o, err
		}
	}
	if t.Auth != nil && t.Auth.Basic != nil {
		name := t.Auth.Basic.SecretRef.Name
		if o.BasicUser, err = secret("auth.basic", v1alpha1.KeyReference{Name: name, Key: "username"}); err != nil {
			return o, err
		}
		if o.BasicPass, err = secret("auth.basic", v1alpha1.KeyReference{Name: name, Key: "password"}); err != nil {
			return o, err
		}
	}
	if t.Signing != nil {
		secrets, err := secret("signing", t.Signing.SecretKeyRef)
		if err != nil {
			return o, err
		}
		o.Signing = strings.Fields(secrets)
	}
	if t.TLS == nil {
		return o, nil
	}
	if ca := t.TLS.CA; ca != nil {
		kind, ref := "ConfigMap", ca.ConfigMapKeyRef
		if ref == nil {
			kind, ref = "Secret", ca.SecretKeyRef
		}
		if o.CA, err = values.Value(kind, namespace, *ref); err != nil {
			return o, fmt.Errorf("tls.ca: %w", err)
		}
	}
	if client := t.TLS.ClientSecretRef; client != nil {
		if o.Certificate, err = values.Value("Secret", namespace, v1alpha1.KeyReference{Name: client.Name, Key: "tls.crt"}); err != nil {
			return o, fmt.Errorf("tls.clientSecretRef: %w", err)
		}
		if o.Key, err = values.Value("Secret", namespace, v1alpha1.KeyReference{Name: client.Name, Key: "tls.key"}); err != nil {
			return o, fmt.Errorf("tls.clientSecretRef: %w", err)
		}
	}
	return o, nil
}

// open opens the webhook's journal, and waits while another process has it.
func open(ctx context.Context, p *plan, options Options, log *slog.Logger) (*webhook, error) {
	m := p.manifest
	limits := journal.Options{Wait: options.LockWait}
	if e := m.Spec.Journal.Embedded; e != nil {
		limits.Retention = duration(e.Retention, 72*time.Hour)
		if e.MaxBytes != nil {
			limits.MaxBytes = e.MaxBytes.Value()
		}
	}
	j, err := journal.Open(ctx, filepath.Join(options.DataDir, m.Namespace, m.Name, "journal.db"), limits)
	if err != nil {
		return nil, err
	}
	return &webhook{
		namespace: m.Namespace, name: m.Name, options: options, journal: j,
		log: log.With("webhook", m.Namespace+"/"+m.Name), targets: map[string]*target{}, ending: map[string]*target{},
	}, nil
}

// apply puts a plan into force: targets that are gone stop, new ones begin with the next event,
// others go on as they are told now. attempts is the context of deliveries under way.
func (w *webhook) apply(p *plan, attempts context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := make([]string, 0, len(p.targets))
	for _, t := range p.targets {
		names = append(names, t.spec.Name)
	}
	for name, running := range w.targets {
		if !slices.Contains(names, name) {
			running.stop() // its attempts under way hold up neither this change nor the status
			w.ending[name] = running
			delete(w.targets, name)
		}
	}
	if err := w.journal.KeepCursors(names); err != nil {
		return fmt.Errorf("note the targets in the journal: %w", err)
	}
	w.settleFilters(p)
	w.plan = p
	for _, t := range p.targets {
		if running, ok := w.targets[t.spec.Name]; ok {
			running.dispatcher.Configure(t.policy, w.attempt(p, t, running.unsure))
			running.replace(t.deliverer)
			running.filter, running.template = t.filter, t.template
			continue
		}
		if _, err := w.journal.OpenCursor(t.spec.Name); err != nil { // before the next event is taken
			return fmt.Errorf("open the cursor of target %s: %w", t.spec.Name, err)
		}
		w.targets[t.spec.Name] = w.start(p, t, attempts)
	}
	return nil
}

// settleFilters keeps the last good expression in force where the plan's does not compile. Where there
// never was a good one, events wait: neither are they lost, nor sent to whom they are not for.
func (w *webhook) settleFilters(p *plan) {
	const wait, kept = "; its events wait until it is mended", "; the last good one stays in force"
	var problem, warning string
	switch {
	case p.filterErr == nil:
		w.filter = p.filter
	case w.filter == nil:
		problem = p.filterErr.Error() + wait
	default:
		p.filter.KeepExpression(w.filter)
		w.filter, warning = p.filter, p.filterErr.Error()+kept
	}
	for i := range p.targets {
		t := &p.targets[i]
		if running := w.targets[t.spec.Name]; t.filterErr != nil {
			if running != nil && running.filter != nil {
				t.filter.KeepExpression(running.filter)
				t.policy.Warning = t.filterErr.Error() + kept
			} else {
				t.filter = nil
				t.policy.Problem = wire.First(t.policy.Problem, t.filterErr.Error()+wait)
			}
		}
		if running := w.targets[t.spec.Name]; t.templateErr != nil {
			if running != nil && running.template != nil {
				t.template = running.template
				t.policy.Warning = wire.First(t.policy.Warning, t.templateErr.Error()+kept)
			} else {
				t.policy.Problem = wire.First(t.policy.Problem, t.templateErr.Error()+wait)
			}
		}
		t.policy.Problem = wire.First(t.policy.Problem, problem)
		t.policy.Warning = wire.First(t.policy.Warning, warning)
	}
}

func (w *webhook) start(p *plan, t targetPlan, attempts context.Context) *target {
	ctx, stop := context.WithCancel(context.Background())
	unsure := &atomic.Int64{}
	running := &target{
		dispatcher: dispatch.New(t.spec.Name, w.journal, w.log, t.policy, w.attempt(p, t, unsure)),
		stop:       stop, done: make(chan struct{}), deliverer: t.deliverer, filter: t.filter, template: t.template, unsure: unsure,
	}
	before := w.ending[t.spec.Name] // the same target, removed a moment ago
	delete(w.ending, t.spec.Name)
	go func() {
		defer close(running.done)
		if before != nil {
			before.end()
		}
		if err := running.dispatcher.Run(ctx, attempts); err != nil {
			w.log.Error("delivery ended", "target", t.spec.Name, "error", err)
		}
	}()
	return running
}

// attempt is the way of one event to one target: decode, filter, render, deliver.
func (w *webhook) attempt(p *plan, t targetPlan, unsure *atomic.Int64) dispatch.Attempt {
	spec := &p.manifest.Spec
	shape := render.Shape{
		Format: t.spec.Format, URL: t.url, Source: render.Source(w.namespace, w.name),
		Template: t.template, Method: t.spec.Method, ContentType: contentType(&t.spec),
	}
	return func(ctx context.Context, r journal.Record) dispatch.Outcome {
		e := provider.Decode(spec.Provider, &r.Request, p.ingest.Settings)
		wanted, err := wants(p.filter, t.filter, &e)
		if !wanted {
			return dispatch.Outcome{Result: dispatch.Unwanted}
		}
		request, renderErr := render.Render(shape, &r, &e)
		if renderErr != nil {
			return dispatch.Outcome{Result: dispatch.Refused, Reason: renderErr.Error()}
		}
		if r.Replay != "" {
			request.Header.Set("Pbxhook-Replay", r.Replay)
		}
		outcome := t.deliverer.Deliver(ctx, r.ID, request)
		if err != nil && outcome.Result != dispatch.Retry { // once an event; its error may show the caller's number
			level := slog.LevelDebug
			if unsure.Add(1) == 1 {
				level = slog.LevelWarn // the next ones are counted
			}
			w.log.Log(ctx, level, "an expression could not be evaluated, the event passed", "target", t.spec.Name, "id", r.ID, "type", r.Type)
		}
		return outcome
	}
}

// contentType is what the target's own headers say of the body.
func contentType(t *v1alpha1.Target) string {
	for _, h := range t.Headers {
		if strings.EqualFold(h.Name, "Content-Type") && h.Value != nil {
			return *h.Value
		}
	}
	return ""
}

// wants is whether the webhook and the target want the event. err says that an expression could not
// tell, and let it pass.
func wants(webhook *filter.Filter, target *filter.Target, e *event.Event) (bool, error) {
	wanted, err := webhook.Wants(e)
	if !wanted {
		return false, nil
	}
	wanted, targetErr := target.Wants(e)
	return wanted, errors.Join(err, targetErr)
}

func (t *target) replace(d *deliver.Deliverer) {
	if t.deliverer != nil && t.deliverer != d {
		t.deliverer.Close()
	}
	t.deliverer = d
}

// end lets the attempts under way finish, and writes the cursor.
func (t *target) end() {
	t.stop()
	<-t.done
	t.replace(nil)
}

// close ends all deliveries, and then the journal.
func (w *webhook) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Concat(slices.Collect(maps.Values(w.targets)), slices.Collect(maps.Values(w.ending)))
	for _, t := range all {
		t.stop()
	}
	for _, t := range all {
		t.end()
	}
	w.targets, w.ending = map[string]*target{}, map[string]*target{}
	return w.journal.Close()
}

// pending is how many deliveries are still owed to targets.
func (w *webhook) pending() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var owed int64
	for _, t := range w.targets {
		owed += t.dispatcher.Status().Pending
	}
	return owed
}

// report is how the webhook fares; with the targets that were removed a short while ago, or without.
func (w *webhook) report(removed bool) statusz.Webhook {
	state := w.journal.State()
	report := statusz.Webhook{Namespace: w.namespace, Name: w.name, Events: v1alpha1.EventsStatus{
		Received: state.Received, Unparsed: state.Unparsed, Rejected: state.Rejected, LastReceivedTime: timeOf(state.LastReceived),
		OtherVersion: state.OtherVersion, LastOtherVersion: state.LastOtherVersion,
	}}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.targets)) {
		s := w.targets[name].dispatcher.Status()
		report.Events.Pending = max(report.Events.Pending, s.Pending)
		report.Targets = append(report.Targets, v1alpha1.TargetStatus{
			Name: s.Name, Healthy: s.Healthy, Pending: s.Pending, Delivered: s.Delivered,
			DeadLettered: s.DeadLettered, LastDeliveryTime: timeOf(s.LastDelivery), LastError: s.LastError,
			ExpressionErrors: w.targets[name].unsure.Load(),
		})
	}
	if !removed {
		return report
	}
	for _, r := range state.Removed[:min(len(state.Removed), maxRemoved)] {
		report.Targets = append(report.Targets, v1alpha1.TargetStatus{
			Name: r.Name, Pending: r.Pending, LastError: "removed: it goes on where it was if it comes back before " + r.Until.UTC().Format(time.RFC3339),
		})
	}
	return report
}

func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}
