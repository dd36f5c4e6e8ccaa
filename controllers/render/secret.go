package render

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// ManifestKey is the key of a receiver's configuration in its Secret.
const ManifestKey = "manifest.yaml"

// Values are the contents of Secrets and ConfigMaps, by "<kind>/<name>".
type Values map[string]map[string][]byte

// Source is where values of a kind and name stand in Values.
func Source(kind, name string) string { return kind + "/" + name }

// Secret carries a receiver's configuration: one file, so that it changes as a whole.
func Secret(w *v1alpha1.PBXWebhook, manifest []byte) *corev1ac.SecretApplyConfiguration {
	return corev1ac.Secret(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithAnnotations(map[string]string{AnnotationConfig: Hash(manifest)}).
		WithOwnerReferences(owner(w)).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{ManifestKey: manifest})
}

// Hash tells one configuration from another, as the receiver computes it.
func Hash(manifest []byte) string {
	sum := sha256.Sum256(manifest)
	return hex.EncodeToString(sum[:])
}

// Manifest is a receiver's configuration: the webhook, and exactly those values that it refers to,
// as the manifests that `pbxhook run` takes. What the receiver does not act on is left out, so that
// it does not change its configuration.
func Manifest(w *v1alpha1.PBXWebhook, values Values) ([]byte, error) {
	spec := w.Spec.DeepCopy()
	spec.Receiver, spec.Expose = v1alpha1.Receiver{TLS: spec.Receiver.TLS}, nil
	if Enabled(w) || !Volatile(w) { // an emptyDir is drained by a receiver that takes no new events
		spec.Enabled = nil
	}
	if spec.Journal.Embedded != nil {
		spec.Journal.Embedded.Storage = v1alpha1.EmbeddedStorage{}
	}
	typeMeta := metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.Kind}
	meta := metav1.ObjectMeta{Namespace: w.Namespace, Name: w.Name, UID: w.UID} // by its UID a receiver knows a retained journal of another one
	for _, key := range []string{v1alpha1.AnnotationJournalBefore, v1alpha1.AnnotationCluster} {
		if value := w.Annotations[key]; value != "" {
			metav1.SetMetaDataAnnotation(&meta, key, value)
		}
	}
	documents := []any{struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              *v1alpha1.PBXWebhookSpec `json:"spec"`
	}{typeMeta, meta, spec}}

	wanted := wantedKeys(w)
	for _, source := range slices.Sorted(maps.Keys(wanted)) {
		kind, name, _ := strings.Cut(source, "/")
		data := map[string][]byte{}
		for key := range wanted[source] {
			if value, ok := values[source][key]; ok {
				data[key] = value
			}
		}
		if len(data) == 0 {
			continue
		}
		meta := metav1.ObjectMeta{Namespace: w.Namespace, Name: name}
		if kind == "ConfigMap" {
			documents = append(documents, corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}, ObjectMeta: meta, BinaryData: data})
		} else {
			documents = append(documents, corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}, ObjectMeta: meta, Data: data})
		}
	}
	var out bytes.Buffer
	for i, document := range documents {
		data, err := sigsyaml.Marshal(document)
		if err != nil {
			return nil, fmt.Errorf("write the receiver's configuration: %w", err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(data)
	}
	return out.Bytes(), nil
}

func wantedKeys(w *v1alpha1.PBXWebhook) map[string]map[string]bool {
	wanted := map[string]map[string]bool{}
	for _, ref := range w.References() {
		source := Source(ref.Kind, ref.Name)
		if wanted[source] == nil {
			wanted[source] = map[string]bool{}
		}
		for _, key := range ref.All() {
			wanted[source][key] = true
		}
	}
	return wanted
}

// ReadWebhook is the webhook of a manifest; nil where there is none that can be read.
func ReadWebhook(manifest []byte) *v1alpha1.PBXWebhook {
	document, err := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest))).Read()
	w := &v1alpha1.PBXWebhook{}
	if err != nil || sigsyaml.Unmarshal(document, w) != nil || w.Kind != v1alpha1.Kind {
		return nil
	}
	return w
}

// ReadValues are the values that a manifest carries.
func ReadValues(manifest []byte) (Values, error) {
	values := Values{}
	for documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the receiver's configuration: %w", err)
		}
		object := struct {
			Kind       string            `json:"kind"`
			Metadata   metav1.ObjectMeta `json:"metadata"`
			Data       map[string][]byte `json:"data"`
			BinaryData map[string][]byte `json:"binaryData"`
		}{}
		if err := sigsyaml.Unmarshal(document, &object); err != nil {
			return nil, errors.New("read the receiver's configuration: not the YAML that was written") // err may show a value
		}
		switch object.Kind {
		case "Secret":
			values[Source(object.Kind, object.Metadata.Name)] = object.Data
		case "ConfigMap":
			values[Source(object.Kind, object.Metadata.Name)] = object.BinaryData
		}
	}
}
