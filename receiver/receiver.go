// Package receiver is the process that PBXs call: it serves the webhooks of its configuration, keeps
// their events and delivers them. The way of an event is one package a step: ingest, provider,
// journal, dispatch, filter, render, deliver.
//
// It must not know Kubernetes' API: its configuration is files, and what it knows of itself it says
// at /statusz.
package receiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/server"
	"github.com/pbxhook/pbxhook/receiver/tracing"
)

// Options of a receiver.
type Options struct {
	Listen    string // address for PBXs
	ListenTLS string // the same over TLS, for webhooks with receiver.tls
	Metrics   string // address of /metrics, /healthz, /readyz and /statusz
	Admin     string // address of the admin API; loopback
	DataDir   string // journals lie under it
	// Load reads the configuration.
	Load func() (*config.Manifests, error)
	// Watch are files or folders; when they change, the configuration is read again.
	Watch []string
	// LockWait is how long to wait for another process to let go of a journal; negative: for ever.
	LockWait time.Duration
	// MaxConnections is how many connections of PBXs may be open; 0: DefaultMaxConnections.
	MaxConnections int
	// MaxBodyBytes is how many bytes of their requests' bodies may be in flight; 0: DefaultMaxBodyBytes.
	MaxBodyBytes int64
	// Networks that targets may be in.
	Networks deliver.Networks
	// Linger is how long requests are still taken after the end was asked for, so that those who do
	// not know of it yet are answered.
	Linger time.Duration
	// Grace is how long the end may take in all.
	Grace time.Duration
	// DrainFirst delivers what is pending before the end, as far as Grace allows: for a journal that
	// goes with the pod. A webhook that is disabled is served all the same, and takes nothing.
	DrainFirst bool
	// Unlogged leaves the delivery log out.
	Unlogged bool
	// Tracer makes the spans of requests and attempts; nil: as OpenTelemetry's environment variables say.
	Tracer *tracing.Tracer
	// Serving is called once the webhooks are served, with the address for PBXs, and that over TLS if
	// there is one.
	Serving func(address, addressTLS string, webhooks []*v1alpha1.PBXWebhook)
	Log     *slog.Logger
}

// The defaults of bounds, and those of the addresses that are not for PBXs.
const (
	DefaultMaxConnections = 1024
	DefaultMaxBodyBytes   = 64 << 20
	peopleConnections     = 64
	peopleBodyBytes       = 4 << 20
)

// Receiver serves webhooks.
type Receiver struct {
	options Options
	log     *slog.Logger
	metrics *metrics
	ingest  *ingest.Handler

	limits       *server.Limits // of PBXs
	certificates server.Certificates
	tls          *server.Server // nil while no webhook has a certificate

	attempts context.Context // of deliveries under way
	abandon  context.CancelFunc
	people   context.Context // of what people ask for, and may follow
	dismiss  context.CancelFunc

	mu       sync.Mutex
	webhooks map[string]*webhook
	replaced []*webhook        // by others, to be closed once requests go to these; of who reloads alone
	config   *config.Manifests // in force; nil before the first
	refused  *refusal
}

// refusal is a configuration that could not be used.
type refusal struct {
	hash   string
	reason string
}

// New makes a receiver; Run makes it serve.
func New(options Options) *Receiver {
	if options.Tracer == nil {
		var err error
		if options.Tracer, err = tracing.New(context.Background(), options.Log); err != nil {
			options.Log.Error("no traces are made", "error", err) // events are worth more than their traces
		}
	}
	r := &Receiver{options: options, log: options.Log, webhooks: map[string]*webhook{}}
	r.limits = server.NewLimits(cmp.Or(options.MaxConnections, DefaultMaxConnections), cmp.Or(options.MaxBodyBytes, DefaultMaxBodyBytes), r.noteRejection)
	r.metrics = newMetrics(r)
	r.ingest = ingest.NewHandler(r.log, options.Tracer, r.metrics.answered)
	r.attempts, r.abandon = context.WithCancel(context.Background())
	r.people, r.dismiss = context.WithCancel(context.Background())
	return r
}

// Run serves until ctx ends: then it takes requests for Linger, each the last on its connection, finishes the deliveries
// under way, closes the journals and returns. While another process has a journal open it waits, not ready.
func (r *Receiver) Run(ctx context.Context) (err error) {
	defer r.abandon()
	defer r.dismiss()
	defer r.endTraces()
	metricsServer, err := r.listenForPeople("metrics", r.options.Metrics, r.metricsHandler())
	if err != nil {
		return err
	}
	adminServer, err := r.listenForPeople("admin", r.options.Admin, r.adminHandler())
	if err != nil {
		return errors.Join(err, metricsServer.Shutdown(context.Background()))
	}
	defer func() {
		r.dismiss()
		err = errors.Join(err, r.closeWebhooks(), adminServer.Shutdown(context.Background()), metricsServer.Shutdown(context.Background()))
	}()
	if err := r.reload(ctx); err != nil {
		return err
	}
	hooks, err := server.Listen(server.Options{Name: "webhooks", Address: r.options.Listen, Handler: r.ingest, Limits: r.limits, Log: r.log})
	if err != nil {
		return err
	}
	if err := r.listenTLS(); err != nil {
		return errors.Join(err, hooks.Shutdown(context.Background()))
	}
	if r.options.Serving != nil {
		r.options.Serving(hooks.Address(), r.tls.Address(), r.config.Webhooks)
	}
	watchErr := r.watch(ctx) // returns when ctx ends
	r.end(hooks)
	return watchErr
}

// listenForPeople serves those who ask now and then: Prometheus, the kubelet, the operator, and people. What PBXs take
// up leaves them theirs.
func (r *Receiver) listenForPeople(what, address string, handler http.Handler) (*server.Server, error) {
	limits := server.NewLimits(peopleConnections, peopleBodyBytes, nil)
	return server.Listen(server.Options{Name: what, Address: address, Handler: handler, Limits: limits, Context: r.people, Log: r.log})
}

// noteRejection counts and shows what was rejected before it reached a webhook.
func (r *Receiver) noteRejection(rejection server.Rejection) {
	r.metrics.rejectedUnread(rejection)
	r.ingest.NoteUnread(rejection.Code, rejection.Sender, "rejected before a request was read: "+string(rejection.Reason), rejection.Detail)
}

const traceGrace = 2 * time.Second

// endTraces sends the last ones.
func (r *Receiver) endTraces() {
	ctx, cancel := context.WithTimeout(context.Background(), traceGrace)
	defer cancel()
	if err := r.options.Tracer.Close(ctx); err != nil {
		r.log.Warn("the last traces were not sent", "error", err)
	}
}

// end lets requests and deliveries finish, within Grace.
func (r *Receiver) end(hooks *server.Server) {
	start := time.Now()
	deadline := start.Add(r.options.Grace)
	hooks.AnnounceShutdown()
	r.tls.AnnounceShutdown()
	time.Sleep(min(r.options.Linger, r.options.Grace/2))
	if r.options.DrainFirst {
		for r.pending() > 0 && time.Until(deadline) > 5*time.Second {
			time.Sleep(100 * time.Millisecond)
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if err := errors.Join(hooks.Shutdown(ctx), r.tls.Shutdown(ctx)); err != nil {
		r.log.Warn("requests were cut off", "error", err)
	}
	time.AfterFunc(time.Until(deadline)-time.Second, r.abandon) // deliveries that take longer are made again after the start
	r.log.Info("no more requests are taken", "after", time.Since(start).Round(time.Millisecond).String())
}

func (r *Receiver) pending() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var owed int64
	for _, w := range r.webhooks {
		owed += w.pending()
	}
	return owed
}

// reload reads the configuration and puts it into force as a whole. The first one must be good; a
// later one that is not is refused, and the last good one stays.
func (r *Receiver) reload(ctx context.Context) error {
	manifests, err := r.options.Load()
	hash := ""
	if manifests != nil {
		hash = manifests.Hash
	}
	if err == nil {
		if r.config != nil && r.config.Hash == hash {
			r.unrefuse()
			return nil
		}
		err = r.apply(ctx, manifests)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.config, r.refused = manifests, nil
		r.log.Info("configuration in force", "hash", hash, "webhooks", len(manifests.Webhooks))
		return nil
	}
	if r.config == nil {
		return err
	}
	now := refusal{hash: hash, reason: err.Error()}
	if r.refused == nil || *r.refused != now { // said once
		r.log.Error("configuration refused, the last good one stays in force", "hash", hash, "error", err)
	}
	r.refused = &now
	return nil
}

// unrefuse forgets a refused configuration that was taken back.
func (r *Receiver) unrefuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = nil
}

func (r *Receiver) apply(ctx context.Context, manifests *config.Manifests) error {
	plans := make([]*plan, 0, len(manifests.Webhooks))
	for _, manifest := range manifests.Webhooks {
		enabled := manifest.Spec.Enabled == nil || *manifest.Spec.Enabled
		if !enabled && !r.options.DrainFirst {
			continue
		}
		p, err := planFor(manifest, manifests, r.options)
		if err != nil {
			return err
		}
		p.ingest.Closed = !enabled
		plans = append(plans, p)
	}
	served := make([]*ingest.Webhook, 0, len(plans))
	kept := map[string]bool{}
	var postponed []error
	for i, p := range plans {
		id := p.ingest.ID()
		kept[id] = true
		plan := func(manifest *v1alpha1.PBXWebhook) (*plan, error) { return planFor(manifest, manifests, r.options) }
		if w := r.atWork(id); w != nil && w.mustStay(p) {
			stays, err := plan(overJournal(p.manifest, w.current().manifest.Spec.Journal))
			if err != nil {
				return err
			}
			stays.ingest.Closed = p.ingest.Closed
			plans[i], p = stays, stays
			postponed = append(postponed, fmt.Errorf("PBXWebhook %s: %w", id, errOnItsWay))
		}
		w, old, err := r.webhook(ctx, id, p, plan)
		if err != nil {
			return err
		}
		if old != nil {
			r.replaced = append(r.replaced, old)
		}
		if err := errors.Join(w.applyBefore(ctx, p.manifest, plan), w.apply(p)); err != nil {
			return fmt.Errorf("PBXWebhook %s: %w", id, err)
		}
		if p.certificateErr != nil {
			r.log.Warn("the certificate of receiver.tls cannot be used; a last good one stays in use", "webhook", id, "error", p.certificateErr)
		}
		p.ingest.Journal = w.journal
		served = append(served, &p.ingest)
		r.metrics.start(id, webhookCodes)
	}
	r.ingest.Serve(served)
	r.certificates.Put(certificatesOf(plans))
	return errors.Join(append(postponed, r.closeReplaced(), r.forget(kept))...)
}

// webhook is the one at work under an id. Where there is none, or its journal is to be another one, it is opened; what
// is in an earlier journal of another kind goes out first. old is one whose place was taken.
func (r *Receiver) webhook(ctx context.Context, id string, p *plan, planOf func(*v1alpha1.PBXWebhook) (*plan, error)) (w, old *webhook, err error) {
	old = r.atWork(id)
	if old != nil && old.journalKey == p.journalKey {
		return old, nil, nil
	}
	var former *v1alpha1.PBXWebhook // of a journal that is to be opened
	if old == nil {
		former = formerManifest(p.manifest, r.options)
	}
	if w, err = open(ctx, p, r.options, r.metrics, r.log, r.attempts); err != nil {
		return nil, nil, err
	}
	switch {
	case old != nil:
		if err := w.awaitJournal(ctx, old); err != nil {
			return nil, nil, errors.Join(err, w.close())
		}
		if !old.otherKind(p) {
			w.follow(old.unfollow())
			break
		}
		w.follow(old)
		old = nil
	case former != nil:
		formerPlan, err := planOf(former)
		if err == nil {
			err = w.followFormer(ctx, formerPlan)
		}
		if err != nil {
			return nil, nil, errors.Join(err, w.close())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.webhooks[id] = w
	return w, old, nil
}

// atWork is the webhook under an id, or nil.
func (r *Receiver) atWork(id string) *webhook {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.webhooks[id]
}

// forget ends webhooks that the configuration does not have any more.
func (r *Receiver) forget(kept map[string]bool) error {
	r.mu.Lock()
	var gone []*webhook
	for id, w := range r.webhooks {
		if !kept[id] {
			gone = append(gone, w)
			delete(r.webhooks, id)
		}
	}
	r.mu.Unlock()
	var err error
	for _, w := range gone {
		err = errors.Join(err, w.close())
		r.metrics.forget(w.id(), "")
	}
	return err
}

func (r *Receiver) closeReplaced() (err error) {
	for _, w := range r.replaced {
		err = errors.Join(err, w.close())
	}
	r.replaced = nil
	return err
}

func (r *Receiver) closeWebhooks() error { return errors.Join(r.closeReplaced(), r.forget(nil)) }

// Report is what /statusz says.
func (r *Receiver) Report() statusz.Report {
	r.mu.Lock()
	report := statusz.Report{Webhooks: []statusz.Webhook{}}
	if r.config != nil {
		report.ConfigHash = r.config.Hash
	}
	if r.refused != nil {
		report.RefusedHash, report.RefusedReason = r.refused.hash, r.refused.reason
	}
	webhooks := make([]*webhook, 0, len(r.webhooks))
	for _, w := range r.webhooks {
		webhooks = append(webhooks, w)
	}
	r.mu.Unlock()
	for _, w := range webhooks {
		report.Webhooks = append(report.Webhooks, w.report())
	}
	return report
}

// notReady says why a load balancer should prefer other receivers; empty: it need not. While NATS is not reached at all
// that is not so: others are no better off, and an answer of 503 with Retry-After is worth more to a PBX than none.
func (r *Receiver) notReady() string {
	r.mu.Lock()
	webhooks, configured := slices.Collect(maps.Values(r.webhooks)), r.config != nil
	r.mu.Unlock()
	if !configured {
		return "the journal is being opened, or another receiver still has it"
	}
	for _, w := range webhooks {
		if w.shared == nil || !w.shared.CutOff() {
			return ""
		}
	}
	if len(webhooks) == 0 {
		return ""
	}
	return "the NATS server that it is connected to appears to be cut off from its peers"
}
