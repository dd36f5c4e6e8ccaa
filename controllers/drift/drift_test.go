package drift_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/controllers/drift"
)

const owner = "the-operator"

// The object that the operator applied, and its managed fields.
const (
	applied = `
metadata: {labels: {app: a}}
spec:
  replicas: 1
  selector: {app: a}
  args: [one, two]
  template:
    metadata: {annotations: {mine: x}}
    containers:
    - {name: receiver, image: own, resources: {limits: {memory: 1Gi}}}
`
	ownFields = `{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:replicas":{},"f:selector":{},"f:args":{},"f:template":{"f:metadata":{"f:annotations":{"f:mine":{}}},"f:containers":{"k:{\"name\":\"receiver\"}":{".":{},"f:name":{},"f:image":{},"f:resources":{"f:limits":{"f:memory":{}}}}}}}}`
)

func content(t *testing.T, text string) map[string]any {
	t.Helper()
	object := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &object))
	return normal(object).(map[string]any)
}

// normal has whole numbers as the API machinery has them.
func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			v[key] = normal(v[key])
		}
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
	case float64:
		return int64(v)
	}
	return v
}

func entry(manager string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: operation, FieldsV1: metav1.NewFieldsV1(fields)}
}

// without is the operator's fields less those that somebody else took.
func without(t *testing.T, taken ...string) string {
	t.Helper()
	fields := ownFields
	for _, one := range taken {
		require.Contains(t, fields, one)
		fields = strings.Replace(fields, one, "", 1)
	}
	return strings.NewReplacer("{,", "{", ",,", ",", ",}", "}").Replace(fields)
}

func texts(fields []drift.Field) (all []string) {
	for _, f := range fields {
		all = append(all, strings.TrimSpace(f.Manager+" "+f.String()))
	}
	return all
}

func TestFind(t *testing.T) {
	update := metav1.ManagedFieldsOperationUpdate
	for name, tc := range map[string]struct {
		live                     string
		own                      string // the operator's fields; ownFields where empty
		others                   []metav1.ManagedFieldsEntry
		changed, added, accepted []string
		patch                    bool
		fixed                    string // what Fix makes of it; applied where empty
	}{
		"nothing": {live: applied},
		"the API server's defaults are no drift": {
			live:  strings.Replace(applied, "replicas: 1", "replicas: 1\n  paused: false", 1),
			fixed: strings.Replace(applied, "replicas: 1", "replicas: 1\n  paused: false", 1),
		},
		"admission rewrote a value": {
			live: strings.Replace(applied, "image: own", "image: mirror", 1), accepted: []string{`spec.template.containers[name="receiver"].image`},
		},
		"admission rewrote a list": {
			live: strings.Replace(applied, "[one, two]", "[one]", 1), accepted: []string{"spec.args"},
		},
		"admission removed a value": {
			live: strings.Replace(applied, "image: own, ", "", 1), accepted: []string{`spec.template.containers[name="receiver"].image`},
		},
		"admission added a value and a container": {
			live:  strings.Replace(applied, "image: own,", "image: own, env: [{name: A}]}\n    - {name: mesh, image: mesh}\n    - {name: x,", 1),
			fixed: strings.Replace(applied, "image: own,", "image: own, env: [{name: A}]}\n    - {name: mesh, image: mesh}\n    - {name: x,", 1),
			own:   "", accepted: []string{`spec.template.containers[name="receiver"].resources.limits.memory`},
		},
		"a person changed a value": {
			live: strings.Replace(applied, "image: own", "image: other", 1), own: without(t, `"f:image":{}`),
			others:  []metav1.ManagedFieldsEntry{entry("kubectl-edit", update, `{"f:spec":{"f:template":{"f:containers":{"k:{\"name\":\"receiver\"}":{"f:image":{}}}}}}`)},
			changed: []string{`kubectl-edit spec.template.containers[name="receiver"].image`},
		},
		"a person removed a value": {
			live: strings.Replace(applied, "image: own, ", "", 1), own: without(t, `"f:image":{}`), changed: []string{`spec.template.containers[name="receiver"].image`},
		},
		"a controller scaled it by the subresource": {
			live: strings.Replace(applied, "replicas: 1", "replicas: 5", 1), own: without(t, `"f:replicas":{}`),
			others:  []metav1.ManagedFieldsEntry{{Manager: "hpa", Operation: update, Subresource: "scale", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`)}},
			changed: []string{"hpa spec.replicas"},
		},
		"a person added a key to a selector, which has one owner": {
			live: strings.Replace(applied, "selector: {app: a}", "selector: {app: a, no: such}", 1), own: without(t, `"f:selector":{}`),
			others:  []metav1.ManagedFieldsEntry{entry("kubectl-edit", update, `{"f:spec":{"f:selector":{}}}`)},
			changed: []string{"kubectl-edit spec.selector"}, patch: true,
		},
		"admission added a key to a selector": {
			live:  strings.Replace(applied, "selector: {app: a}", "selector: {app: a, mesh: b}", 1),
			fixed: strings.Replace(applied, "selector: {app: a}", "selector: {app: a, mesh: b}", 1),
		},
		"a person added env, a container, paused": {
			live:   strings.Replace(strings.Replace(applied, "replicas: 1", "replicas: 1\n  paused: true", 1), "image: own,", "image: own, env: [{name: A, value: b}],", 1) + "    - {name: sidecar, image: s}\n",
			others: []metav1.ManagedFieldsEntry{entry("kubectl-patch", update, `{"f:spec":{"f:paused":{},"f:template":{"f:containers":{"k:{\"name\":\"sidecar\"}":{".":{},"f:name":{},"f:image":{}},"k:{\"name\":\"receiver\"}":{"f:env":{".":{},"k:{\"name\":\"A\"}":{".":{},"f:name":{},"f:value":{}}}}}}}}`)},
			added:  []string{`kubectl-patch spec.paused`, `kubectl-patch spec.template.containers[name="receiver"].env`, `kubectl-patch spec.template.containers[name="sidecar"]`}, patch: true,
		},
		"template annotations of others stay": {
			live:   strings.Replace(applied, "{mine: x}", "{mine: x, restartedAt: now}", 1),
			fixed:  strings.Replace(applied, "{mine: x}", "{mine: x, restartedAt: now}", 1),
			others: []metav1.ManagedFieldsEntry{entry("kubectl-rollout", update, `{"f:spec":{"f:template":{"f:metadata":{"f:annotations":{"f:restartedAt":{}}}}}}`)},
		},
		"our own annotation comes back": {
			live: strings.Replace(applied, "{mine: x}", "{mine: z}", 1), own: without(t, `"f:metadata":{"f:annotations":{"f:mine":{}}},`),
			others:  []metav1.ManagedFieldsEntry{entry("somebody", update, `{"f:spec":{"f:template":{"f:metadata":{"f:annotations":{"f:mine":{}}}}}}`)},
			changed: []string{"somebody spec.template.metadata.annotations.mine"},
		},
		"labels and status of others are theirs": {
			live:   strings.Replace(applied, "{app: a}}", "{app: a, team: b}}\nstatus: {ready: 1}", 1),
			fixed:  strings.Replace(applied, "{app: a}}", "{app: a, team: b}}\nstatus: {ready: 1}", 1),
			others: []metav1.ManagedFieldsEntry{entry("argocd", update, `{"f:metadata":{"f:labels":{"f:team":{}}},"f:status":{"f:ready":{}}}`)},
		},
		"what the operator patched in once and does not want any more": {
			live:   strings.Replace(applied, "replicas: 1", "replicas: 1\n  old: 2", 1),
			others: []metav1.ManagedFieldsEntry{entry(owner, update, `{"f:spec":{"f:old":{}}}`)},
			added:  []string{owner + " spec.old"}, patch: true,
		},
		"another manager with the same value is no drift": {
			live: applied, others: []metav1.ManagedFieldsEntry{entry("kubectl", metav1.ManagedFieldsOperationApply, `{"f:spec":{"f:replicas":{}}}`)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			own := tc.own
			if own == "" {
				own = ownFields
			}
			managed := append([]metav1.ManagedFieldsEntry{entry(owner, metav1.ManagedFieldsOperationApply, own)}, tc.others...)
			desired, live := content(t, applied), content(t, tc.live)
			found, err := drift.Find(desired, live, managed, owner, func(path string) bool { return strings.HasPrefix(path, "spec.template.metadata.annotations") })
			require.NoError(t, err)
			require.Equal(t, tc.changed, texts(found.Changed), "changed")
			require.ElementsMatch(t, tc.added, texts(found.Added), "added")
			if name != "admission added a value and a container" {
				require.Equal(t, tc.accepted, texts(found.Accepted), "accepted")
			}
			require.Equal(t, tc.patch, found.NeedsPatch())
			require.Equal(t, content(t, tc.live), live, "it is not changed")
			if found.None() {
				return
			}
			fixed, err := found.Fix(desired, live, managed, owner)
			require.NoError(t, err)
			want := tc.fixed
			if want == "" {
				want = applied
			}
			require.Equal(t, content(t, want), fixed)
			require.Equal(t, content(t, tc.live), live, "nor by Fix")
		})
	}
}

// TestListsWithKeysOfNumbers: a port of a Service that somebody changed is another item, and neither may be there twice.
func TestListsWithKeysOfNumbers(t *testing.T) {
	desired := content(t, `spec: {ports: [{name: web, port: 80, protocol: TCP}, {name: metrics, port: 9090, protocol: TCP}]}`)
	live := content(t, `spec: {ports: [{name: web, port: 81, protocol: TCP}, {name: metrics, port: 9090, protocol: TCP, nodePort: 30000}]}`)
	managed := []metav1.ManagedFieldsEntry{
		entry(owner, metav1.ManagedFieldsOperationApply, `{"f:spec":{"f:ports":{"k:{\"port\":9090,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}}}}}`),
		entry("kubectl-edit", metav1.ManagedFieldsOperationUpdate, `{"f:spec":{"f:ports":{"k:{\"port\":81,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}}}}}`),
	}
	found, err := drift.Find(desired, live, managed, owner, nil)
	require.NoError(t, err)
	require.Equal(t, []string{`kubectl-edit spec.ports[port=81,protocol="TCP"]`}, texts(found.Added))
	require.Equal(t, []string{`spec.ports[port=80,protocol="TCP"]`}, texts(found.Changed)[:1], "in the order that is wanted")
	fixed, err := found.Fix(desired, live, managed, owner)
	require.NoError(t, err)
	require.Equal(t, content(t, `spec: {ports: [{name: web, port: 80, protocol: TCP}, {name: metrics, port: 9090, protocol: TCP, nodePort: 30000}]}`), fixed)
}

func TestManagedFieldsThatCannotBeRead(t *testing.T) {
	_, err := drift.Find(content(t, applied), content(t, applied), []metav1.ManagedFieldsEntry{entry("x", metav1.ManagedFieldsOperationUpdate, `{"f:a":`)}, owner, nil)
	require.ErrorContains(t, err, "managed fields of x")
}
