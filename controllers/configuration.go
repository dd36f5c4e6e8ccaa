package controllers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// configuration is what a webhook's receivers are told.
type configuration struct {
	hash    string
	written bool // by this pass
	// credentials says why the PBX's credentials do not resolve, certificate why the receiver's
	// certificate does not, and references why those of targets do not; nil when they do.
	credentials *missing
	certificate *missing
	references  []missing
	// guessable are the keys of the PBX's credentials whose values are so short that they can be guessed.
	guessable []string
	// notes are what is odd about credentials that can be used, without their values.
	notes []string
	// before is the journal in NATS that the receivers had before; nil where there is none.
	before *v1alpha1.NATSJournal
}

// missing is a value that a spec refers to and that is not there, or not whole.
type missing struct {
	reason   string
	message  string
	lastGood bool // an earlier value stays in force
}

// memory is what the operator remembers of webhooks between passes; all of it can be found out
// again. It holds no secret.
type memory struct {
	mu       sync.Mutex
	webhooks map[types.NamespacedName]remembered
}

type remembered struct {
	uid types.UID
	// inputs are the versions of all that the configuration was made of, and of the Secret it went to.
	inputs        string
	configuration configuration
	// drained is the configuration under which all of the journal before was delivered, and left how many dead
	// letters were seen there.
	drained string
	left    int64
	// behindSince is since when a receiver runs another configuration; zero while none does.
	behindSince time.Time
	flip        flip
	// status is the last one that was written, and countersAt when counters alone may be again.
	status     *v1alpha1.PBXWebhookStatus
	countersAt time.Time
}

func (m *memory) get(w *v1alpha1.PBXWebhook) remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.webhooks[client.ObjectKeyFromObject(w)]
	if known.uid != w.UID {
		return remembered{uid: w.UID}
	}
	return known
}

func (m *memory) put(w *v1alpha1.PBXWebhook, known remembered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.webhooks == nil {
		m.webhooks = map[types.NamespacedName]remembered{}
	}
	m.webhooks[client.ObjectKeyFromObject(w)] = known
}

func (m *memory) forget(name types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.webhooks, name)
}

// applyConfiguration makes the receiver's Secret what it should be. The cache has versions of
// Secrets and ConfigMaps, not their values: these are read, from the API server, only when one of
// the versions is another than last time.
func (r *Reconciler) applyConfiguration(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) (configuration, error) {
	known := r.known.get(w)
	before := known.configuration.before
	told, inputs, err := r.inputs(ctx, w, before, known.drained)
	if err != nil {
		return configuration{}, err
	}
	if known.inputs == inputs {
		return known.configuration, nil
	}
	live := &corev1.Secret{}
	found, err := r.findSecret(ctx, w, live)
	if err != nil {
		return configuration{}, err
	}
	if now := journalBefore(w, live.Data[render.ManifestKey], known.drained); !equality.Semantic.DeepEqual(now, before) {
		known.configuration.before = now // what it refers to is an input, too, and what is read must be newer than the inputs
		r.known.put(w, known)
		return r.applyConfiguration(ctx, w, seen)
	}
	w = told
	values, c, err := r.resolve(ctx, w, live)
	if err != nil {
		return configuration{}, err
	}
	c.before = before
	manifest, err := render.Manifest(w, values)
	if err != nil {
		return configuration{}, err
	}
	c.hash = render.Hash(manifest)
	desired, err := stamped(render.Secret(w, manifest))
	if err != nil {
		return configuration{}, err
	}
	var there client.Object
	if found {
		there = live
	}
	if c.written, err = r.converge(ctx, w, desired, there, seen); err != nil {
		return configuration{}, fmt.Errorf("secret: %w", err)
	}
	if c.written || seen.wait > 0 { // its new version comes with the watch, and is then remembered
		log.FromContext(ctx).V(1).Info("configuration written", "hash", c.hash, "generation", w.Generation)
		return c, nil
	}
	known.inputs, known.configuration = inputs, c
	r.known.put(w, known)
	return c, nil
}

// findSecret reads the receiver's own Secret from the API server, and refuses a foreign one.
func (r *Reconciler) findSecret(ctx context.Context, w *v1alpha1.PBXWebhook, live *corev1.Secret) (found bool, err error) {
	err = r.Live.Get(ctx, childKey(w), live)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the receiver's Secret: %w", err)
	}
	return true, refuseForeign(w, live)
}

// inputs are the versions of all that a configuration is made of, for the webhook as its receivers are told of it.
func (r *Reconciler) inputs(ctx context.Context, w *v1alpha1.PBXWebhook, before *v1alpha1.NATSJournal, drained string) (*v1alpha1.PBXWebhook, string, error) {
	w, err := tell(w, before, r.cluster)
	if err != nil {
		return nil, "", err
	}
	versions := fmt.Sprintf("generation %d, drained %s", w.Generation, drained)
	add := func(kind, name string) error {
		meta := &metav1.PartialObjectMetadata{}
		meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
		err := r.Get(ctx, types.NamespacedName{Namespace: w.Namespace, Name: name}, meta)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("look up %s %s: %w", kind, name, err)
		}
		versions += fmt.Sprintf(", %s/%s %s %s", kind, name, meta.UID, meta.ResourceVersion)
		return nil
	}
	if err := add("Secret", render.Name(w.Name)); err != nil {
		return nil, "", err
	}
	for _, source := range sources(w) {
		if err := add(source.Kind, source.Name); err != nil {
			return nil, "", err
		}
	}
	return w, versions, nil
}

// sources are the distinct Secrets and ConfigMaps that a webhook refers to, in order.
func sources(w *v1alpha1.PBXWebhook) []v1alpha1.Reference {
	distinct := map[string]v1alpha1.Reference{}
	for _, ref := range w.References() {
		distinct[render.Source(ref.Kind, ref.Name)] = ref
	}
	var list []v1alpha1.Reference
	for _, source := range slices.Sorted(maps.Keys(distinct)) {
		list = append(list, distinct[source])
	}
	return list
}

// resolve reads the values that a webhook refers to. Where one is missing, the last good ones, which
// are in the receiver's own Secret, stay in force: an accident with a Secret must not lock the PBX
// out, whose events come once.
func (r *Reconciler) resolve(ctx context.Context, w *v1alpha1.PBXWebhook, own *corev1.Secret) (render.Values, configuration, error) {
	values := render.Values{}
	var c configuration
	for _, source := range sources(w) {
		data, err := r.read(ctx, w.Namespace, source.Kind, source.Name)
		if err != nil {
			return nil, c, err
		}
		if data != nil {
			values[render.Source(source.Kind, source.Name)] = data
		}
	}
	lastGood, err := render.ReadValues(own.Data[render.ManifestKey])
	if err != nil {
		lastGood = nil // somebody edited it: it is written anew
	}
	for _, ref := range w.References() {
		source := render.Source(ref.Kind, ref.Name)
		data, exists := values[source]
		m := missing{reason: v1alpha1.ReasonSecretNotFound, message: fmt.Sprintf("%s: %s %s does not exist in namespace %s", ref.Field, ref.Kind, ref.Name, w.Namespace)}
		if exists {
			problem := ref.Check(data)
			if problem == nil && ref.Credentials() {
				c.notes = spelling(ref.Name, data)
			}
			if problem == nil {
				if ref.Credentials() {
					c.guessable = guessable(data)
				}
				continue
			}
			m = missing{reason: reasonOf(problem), message: fmt.Sprintf("%s: %v", ref.Field, problem)}
		}
		if old := lastGood[source]; ref.Check(old) == nil {
			m.lastGood = true
			values[source] = keep(values[source], old, ref.All())
		}
		switch {
		case ref.Credentials():
			c.credentials = &m
		case ref.TLS():
			c.certificate = &m
		default:
			c.references = append(c.references, m)
		}
	}
	return values, c, nil
}

// shortest is how many characters a password or token has that is not easily guessed. Nobody is locked out who guesses.
const shortest = 12

// guessable returns the keys of the PBX's credentials whose values are shorter.
func guessable(credentials map[string][]byte) (keys []string) {
	for _, key := range []string{"password", "previousPassword", "token", "previousToken"} {
		if value := credentials[key]; len(value) > 0 && utf8.RuneCount(value) < shortest {
			keys = append(keys, key)
		}
	}
	return keys
}

// spelling says which credentials end or begin with white space: they are compared as they are, and mostly it is the
// line end of a file that a Secret was made of.
func spelling(secret string, data map[string][]byte) (notes []string) {
	for _, key := range []string{"username", "password", "token", "previousPassword", "previousToken"} {
		if value := data[key]; len(bytes.TrimSpace(value)) != len(value) {
			notes = append(notes, fmt.Sprintf("the key %s of Secret %s begins or ends with white space, which counts: remove it if the PBX does not send it (a file often ends with a newline)", key, secret))
		}
	}
	return notes
}

// reasonOf is the reason for a reference that does not hold.
func reasonOf(problem error) string {
	if key := (*v1alpha1.MissingKeyError)(nil); errors.As(problem, &key) {
		return v1alpha1.ReasonKeyNotFound
	}
	return v1alpha1.ReasonInvalidValue
}

// keep puts earlier values in the place of those of some keys.
func keep(values, earlier map[string][]byte, keys []string) map[string][]byte {
	kept := maps.Clone(values)
	if kept == nil {
		kept = map[string][]byte{}
	}
	for _, key := range keys {
		if value, ok := earlier[key]; ok {
			kept[key] = value
		} else {
			delete(kept, key)
		}
	}
	return kept
}

// read reads the values of a Secret or ConfigMap from the API server; nil where there is none.
func (r *Reconciler) read(ctx context.Context, namespace, kind, name string) (map[string][]byte, error) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	data := map[string][]byte{}
	var err error
	if kind == "ConfigMap" {
		configMap := &corev1.ConfigMap{}
		err = r.Live.Get(ctx, key, configMap)
		maps.Copy(data, configMap.BinaryData)
		for name, value := range configMap.Data {
			data[name] = []byte(value)
		}
	} else {
		secret := &corev1.Secret{}
		err = r.Live.Get(ctx, key, secret)
		maps.Copy(data, secret.Data)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind, name, err)
	}
	return data, nil
}
