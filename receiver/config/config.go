// Package config reads what a receiver serves: PBXWebhook manifests, and the Secrets and ConfigMaps
// that they refer to, from the same files whether the operator wrote them or a person did.
//
// It must not know what is done with them.
package config

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

const (
	MaxFile      = 8 << 20 // bytes of one file
	maxDocuments = 10_000
)

// Manifests are what the files hold.
type Manifests struct {
	Webhooks  []*v1alpha1.PBXWebhook
	Documents []Document // of the webhooks, as written
	Hash      string     // of all files, as the operator computes it
	values    map[string]map[string][]byte
}

// Document is one manifest as written, before defaults.
type Document struct {
	File string
	YAML []byte
}

// New returns manifests without any document.
func New() *Manifests { return &Manifests{values: map[string]map[string][]byte{}} }

// Load reads files; a folder stands for the .yaml, .yml and .json files in it. finish turns one
// written PBXWebhook into a webhook with defaults, and may refuse it; nil takes it as it stands.
// With an error, what is returned has the hash alone, if the files could be read.
func Load(paths []string, finish func(Document) (*v1alpha1.PBXWebhook, error)) (*Manifests, error) {
	files, err := Files(paths)
	if err != nil {
		return nil, err
	}
	texts := make([][]byte, len(files))
	hash := sha256.New()
	for i, file := range files {
		if texts[i], err = ReadFile(file); err != nil {
			return nil, err
		}
		hash.Write(texts[i])
	}
	return assemble(files, texts, hex.EncodeToString(hash.Sum(nil)), finish)
}

// Parse reads manifests from one text, such as the configuration that the operator writes.
func Parse(text []byte) (*Manifests, error) {
	return assemble([]string{"the configuration"}, [][]byte{text}, "", nil)
}

func assemble(files []string, texts [][]byte, hash string, finish func(Document) (*v1alpha1.PBXWebhook, error)) (*Manifests, error) {
	m := New()
	m.Hash = hash
	for i, file := range files {
		if err := m.add(file, texts[i]); err != nil {
			return &Manifests{Hash: m.Hash}, err
		}
	}
	seen := map[string]bool{}
	for _, document := range m.Documents {
		webhook, err := finishOne(document, finish)
		if err != nil {
			return &Manifests{Hash: m.Hash}, err
		}
		id := webhook.Namespace + "/" + webhook.Name
		if seen[id] {
			return &Manifests{Hash: m.Hash}, fmt.Errorf("%s: PBXWebhook %s stands there twice: rename or remove one", document.File, id)
		}
		seen[id] = true
		m.Webhooks = append(m.Webhooks, webhook)
	}
	return m, nil
}

func finishOne(document Document, finish func(Document) (*v1alpha1.PBXWebhook, error)) (*v1alpha1.PBXWebhook, error) {
	if finish == nil {
		finish = func(d Document) (*v1alpha1.PBXWebhook, error) {
			webhook := &v1alpha1.PBXWebhook{}
			if err := sigsyaml.UnmarshalStrict(d.YAML, webhook); err != nil {
				return nil, fmt.Errorf("%s: read PBXWebhook: %w", d.File, err)
			}
			return webhook, nil
		}
	}
	webhook, err := finish(document)
	if err != nil {
		return nil, err
	}
	if webhook.Namespace == "" {
		webhook.Namespace = metav1.NamespaceDefault
	}
	return webhook, nil
}

// Files returns the files that paths stand for: of a folder, the .yaml, .yml and .json files in it.
func Files(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		found := 0
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		for _, entry := range entries {
			if !entry.IsDir() && IsManifest(entry.Name()) {
				files = append(files, filepath.Join(path, entry.Name()))
				found++
			}
		}
		if found == 0 {
			return nil, fmt.Errorf("expected .yaml, .yml or .json files in %s, got none", path)
		}
	}
	return files, nil
}

// IsManifest is whether a file in a folder is taken for a manifest, by its name.
func IsManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// ReadFile reads a file of at most 8 MiB.
func ReadFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("read %s: expected at most %d MiB", path, MaxFile>>20)
	}
	return data, nil
}

// add reads the documents of one file. Kinds that are not for the receiver are passed over, so that
// one file can also hold what else belongs to an application.
func (m *Manifests) add(file string, data []byte) error {
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 0; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: document %d: %w", file, n+1, err)
		}
		if n == maxDocuments {
			return fmt.Errorf("%s: expected at most %d documents", file, maxDocuments)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		if err := m.Add(file, document); err != nil {
			return fmt.Errorf("%s: document %d: %w", file, n+1, err)
		}
	}
}

// Add reads one document. Kinds that are not for the receiver are passed over.
func (m *Manifests) Add(file string, document []byte) error {
	var meta metav1.TypeMeta
	if err := sigsyaml.Unmarshal(document, &meta); err != nil {
		return fmt.Errorf("not YAML of a Kubernetes object: %w", ExplainYAML(err))
	}
	switch {
	case meta.Kind == v1alpha1.Kind && strings.HasPrefix(meta.APIVersion, v1alpha1.GroupVersion.Group+"/"):
		if meta.APIVersion != v1alpha1.GroupVersion.String() {
			return fmt.Errorf("expected apiVersion %s, got %s", v1alpha1.GroupVersion, meta.APIVersion)
		}
		m.Documents = append(m.Documents, Document{File: file, YAML: document})
	case meta.Kind == "Secret" && meta.APIVersion == "v1":
		secret := &corev1.Secret{}
		if err := sigsyaml.Unmarshal(document, secret); err != nil {
			return errors.New("read Secret: expected data in base64, or stringData") // err may show a value
		}
		values := secret.Data
		if values == nil {
			values = map[string][]byte{}
		}
		for key, value := range secret.StringData {
			values[key] = []byte(value)
		}
		m.values[objectKey("Secret", secret.Namespace, secret.Name)] = values
	case meta.Kind == "ConfigMap" && meta.APIVersion == "v1":
		configMap := &corev1.ConfigMap{}
		if err := sigsyaml.Unmarshal(document, configMap); err != nil {
			return fmt.Errorf("read ConfigMap: %w", err)
		}
		values := configMap.BinaryData
		if values == nil {
			values = map[string][]byte{}
		}
		for key, value := range configMap.Data {
			values[key] = []byte(value)
		}
		m.values[objectKey("ConfigMap", configMap.Namespace, configMap.Name)] = values
	}
	return nil
}

func objectKey(kind, namespace, name string) string {
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return kind + " " + namespace + "/" + name
}

// Values are those of a Secret or ConfigMap, and whether there is one.
func (m *Manifests) Values(kind, namespace, name string) (values map[string][]byte, ok bool) {
	values, ok = m.values[objectKey(kind, namespace, name)]
	return values, ok
}

// Value is one value of a Secret or ConfigMap.
func (m *Manifests) Value(kind, namespace string, ref v1alpha1.KeyReference) ([]byte, error) {
	values, ok := m.values[objectKey(kind, namespace, ref.Name)]
	if !ok {
		return nil, fmt.Errorf("%s %s does not exist", kind, ref.Name)
	}
	value, ok := values[ref.Key]
	if !ok {
		return nil, fmt.Errorf("%s %s has no key %s", kind, ref.Name, ref.Key)
	}
	return value, nil
}
