package receiver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/expression"
	"github.com/pbxhook/pbxhook/receiver/filter"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// plan is what a manifest asks for, checked as a whole before anything of it is put into force.
type plan struct {
	manifest  *v1alpha1.PBXWebhook
	ingest    ingest.Webhook
	filter    *filter.Filter // nil where its expression is refused, and there is no last good one
	filterErr error          // its expression does not compile
	targets   []targetPlan
	// certificate of receiver.tls; certificateErr says why it cannot be used.
	certificate    *tls.Certificate
	certificateErr error
	// nats is where events are kept, where that is journal.nats; journalKey tells it from others.
	nats       *journal.NATSOptions
	journalKey string
}

type targetPlan struct {
	spec      v1alpha1.Target
	url       string
	host      string // of the URL
	policy    dispatch.Policy
	deliverer *deliver.Deliverer
	filter    *filter.Target       // nil as that of the plan
	filterErr error                // its expression does not compile
	template  *expression.Template // nil likewise, and for other formats
	// templateErr says that its template does not compile.
	templateErr error
}

// names are those of the targets.
func (p *plan) names() []string {
	names := make([]string, 0, len(p.targets))
	for _, t := range p.targets {
		names = append(names, t.spec.Name)
	}
	return names
}

// target is the plan for a target, or nil.
func (p *plan) target(name string) *targetPlan {
	if p == nil {
		return nil
	}
	for i := range p.targets {
		if p.targets[i].spec.Name == name {
			return &p.targets[i]
		}
	}
	return nil
}

// keepLastGood keeps the expressions, templates and certificate of the last plan in force where this
// one's cannot be used. Where there never was a good one, events wait: neither are they lost, nor sent to whom they
// are not for.
func (p *plan) keepLastGood(last *plan) {
	if p.certificateErr != nil && last != nil {
		p.certificate = last.certificate
	}
	kept := last != nil && last.filter != nil
	switch {
	case p.filterErr == nil:
	case kept:
		p.filter.KeepExpression(last.filter)
	default:
		p.filter = nil
	}
	for i := range p.targets {
		t := &p.targets[i]
		t.keepLastGood(last.target(t.spec.Name))
		if p.filterErr != nil {
			t.refuse(p.filterErr, kept)
		}
	}
}

func (t *targetPlan) keepLastGood(last *targetPlan) {
	if t.filterErr != nil {
		kept := last != nil && last.filter != nil
		if kept {
			t.filter.KeepExpression(last.filter)
		} else {
			t.filter = nil
		}
		t.refuse(t.filterErr, kept)
	}
	if t.templateErr != nil {
		if last != nil {
			t.template = last.template
		}
		t.refuse(t.templateErr, t.template != nil)
	}
}

// refuse says what does not compile: a warning where the last good one is kept, else why nothing goes out.
func (t *targetPlan) refuse(err error, kept bool) {
	if kept {
		t.policy.Warning = wire.First(t.policy.Warning, err.Error()+"; the last good one stays in force")
	} else {
		t.policy.Problem = wire.First(t.policy.Problem, err.Error()+"; its events wait until it is mended")
	}
}

// planFor checks a manifest. Trouble of one target becomes that target's problem alone.
func planFor(manifest *v1alpha1.PBXWebhook, values *config.Manifests, options Options) (*plan, error) {
	spec := &manifest.Spec
	id := manifest.Namespace + "/" + manifest.Name
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
	if spec.Journal.NATS != nil {
		p.nats, p.journalKey = natsFor(manifest, values)
		p.nats.Guard = journalNetworks(options.Networks).Guard
	}
	p.certificate, p.certificateErr = certificateFor(manifest, values)
	p.filter, p.filterErr = filter.Compile(spec)
	p.ingest = ingest.Webhook{
		Namespace: manifest.Namespace, Name: manifest.Name, Provider: spec.Provider,
		Settings: &wire.Settings{
			Version: spec.Version, Location: location, Region: spec.DefaultRegion,
			Fields: fieldKeys(spec.Fields), TokenName: spec.Credentials.TokenName,
		},
		Methods: methods(spec), Credentials: credentials,
	}
	for _, t := range spec.Targets {
		target := planTarget(manifest.Namespace, t, values, options)
		target.policy.Webhook = string(manifest.UID)
		p.targets = append(p.targets, target)
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

// journalNetworks are where the servers of a journal may be: where targets may, and beside the receiver.
func journalNetworks(targets deliver.Networks) deliver.Networks {
	targets.Private = true
	return targets
}

// natsFor resolves what journal.nats refers to. A Secret that is not there is no error, because it heals by itself.
func natsFor(manifest *v1alpha1.PBXWebhook, values *config.Manifests) (o *journal.NATSOptions, key string) {
	spec := manifest.Spec.Journal.NATS
	o = &journal.NATSOptions{
		Namespace: manifest.Namespace, Webhook: manifest.Name, Cluster: manifest.Annotations[v1alpha1.AnnotationCluster], URL: spec.URL, Account: spec.Account, Domain: spec.Domain,
		Replicas: int(max(spec.Replicas, 1)), Retention: duration(spec.Retention, 72*time.Hour),
	}
	if spec.MaxBytes != nil {
		o.MaxBytes = spec.MaxBytes.Value()
	}
	if ref := spec.CredentialsSecretRef; ref != nil {
		secret, _ := values.Values("Secret", manifest.Namespace, ref.Name)
		text := func(key string) string { return strings.TrimSpace(string(secret[key])) }
		o.User, o.Password, o.Token, o.NKey, o.Creds = text("username"), text("password"), text("token"), text("nkey"), secret["creds"]
	}
	var pems []byte
	if spec.TLS != nil {
		o.TLS, pems, o.Lacking = natsTLS(manifest.Namespace, spec.TLS, values)
	}
	hash := sha256.Sum256(fmt.Appendf(pems, "%q %v %q %q %q %d %d %s %q %q %q %q %q", o.Cluster, o.Lacking, o.URL, o.Account, o.Domain, o.Replicas, o.MaxBytes, o.Retention, o.User, o.Password, o.Token, o.NKey, o.Creds))
	return o, hex.EncodeToString(hash[:])
}

// authority is the PEM bundle that a CA is given by.
func authority(namespace string, ca *v1alpha1.CASource, values *config.Manifests) ([]byte, error) {
	kind, ref := "ConfigMap", ca.ConfigMapKeyRef
	if ref == nil {
		kind, ref = "Secret", ca.SecretKeyRef
	}
	return values.Value(kind, namespace, *ref)
}

func natsTLS(namespace string, spec *v1alpha1.NATSTLS, values *config.Manifests) (*tls.Config, []byte, error) {
	c, pems := &tls.Config{MinVersion: tls.VersionTLS12}, []byte{}
	if ca := spec.CA; ca != nil {
		pem, err := authority(namespace, ca, values)
		if err != nil {
			return nil, nil, fmt.Errorf("journal.nats.tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, errors.New("journal.nats.tls.ca: expected certificates in PEM, got none")
		}
		pems = append(pems, pem...)
	}
	if client := spec.ClientSecretRef; client != nil {
		certificate, err := values.Value("Secret", namespace, v1alpha1.KeyReference{Name: client.Name, Key: v1alpha1.KeyCertificate})
		if err != nil {
			return nil, nil, fmt.Errorf("journal.nats.tls.clientSecretRef: %w", err)
		}
		key, err := values.Value("Secret", namespace, v1alpha1.KeyReference{Name: client.Name, Key: v1alpha1.KeyPrivateKey})
		if err != nil {
			return nil, nil, fmt.Errorf("journal.nats.tls.clientSecretRef: %w", err)
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, nil, errors.New("journal.nats.tls.clientSecretRef: expected a certificate and its key in PEM") // err may show the key
		}
		c.Certificates = []tls.Certificate{pair}
		pems = append(append(pems, certificate...), key...)
	}
	return c, pems, nil
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
	if u, err := url.Parse(p.url); err == nil { // else the attempt says so
		p.host = u.Host
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
		Suspended:    t.Suspend != nil && *t.Suspend,
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
		if o.CA, err = authority(namespace, ca, values); err != nil {
			return o, fmt.Errorf("tls.ca: %w", err)
		}
	}
	if client := t.TLS.ClientSecretRef; client != nil {
		if o.Certificate, err = values.Value("Secret", namespace, v1alpha1.KeyReference{Name: client.Name, Key: v1alpha1.KeyCertificate}); err != nil {
			return o, fmt.Errorf("tls.clientSecretRef: %w", err)
		}
		if o.Key, err = values.Value("Secret", namespace, v1alpha1.KeyReference{Name: client.Name, Key: v1alpha1.KeyPrivateKey}); err != nil {
			return o, fmt.Errorf("tls.clientSecretRef: %w", err)
		}
	}
	return o, nil
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

// DropJournal deletes the journals in NATS of a configuration, as receivers get it.
func DropJournal(ctx context.Context, manifest []byte) error {
	manifests, err := config.Parse(manifest)
	if err != nil {
		return err
	}
	for _, webhook := range manifests.Webhooks {
		if webhook.Spec.Journal.NATS == nil {
			continue
		}
		o, _ := natsFor(webhook, manifests)
		if o.Lacking != nil {
			return o.Lacking
		}
		o.Log = slog.New(slog.DiscardHandler) // what goes wrong is the error
		o.Guard = journalNetworks(deliver.Networks{}).Guard
		if err := journal.DropNATS(ctx, *o); err != nil {
			return err
		}
	}
	return nil
}
