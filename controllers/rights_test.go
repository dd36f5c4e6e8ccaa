package controllers_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/test/testenv"
)

// TestEveryRightIsUsed: the operator of these tests has the rights of config/rbac and no more; this is
// about the other half, that it has none which it does not use.
func TestEveryRightIsUsed(t *testing.T) {
	install(t, filepath.Join("testdata", "podmonitors.yaml"))
	gatewayAPI(t)
	w := newWorld(t)
	w.apis = discover(t)
	w.secret("pbx", map[string]string{"token": "t"})
	w.operator()
	webhook := w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) {
		p.Spec.Targets[0].TLS = &v1alpha1.TargetTLS{CA: &v1alpha1.CASource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: "ca", Key: "ca.crt"}}}
	})
	require.NoError(t, w.client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "ca"}}))
	pod := w.healthy("callcenter")
	for _, expose := range []*v1alpha1.Expose{
		{Ingress: &v1alpha1.ExposeIngress{Host: "pbx.example.com"}},
		{Gateway: &v1alpha1.ExposeGateway{ParentRefs: []v1alpha1.ParentReference{{Name: "public"}}}},
		nil,
	} {
		w.get(webhook, "callcenter")
		webhook.Spec.Expose = expose
		w.replaceSpec(webhook)
		w.quiet()
	}
	w.answer("another", nil) // an event, and the pod is told
	w.touch(pod)
	w.quiet()
	w.answer("", errors.New("no"))
	w.mu.Lock()
	used := maps.Clone(w.used)
	w.mu.Unlock()

	unreached := map[string]string{
		"policy/poddisruptionbudgets get":                  "of more than one replica, which needs journal.nats",
		"policy/poddisruptionbudgets create":               "the same",
		"policy/poddisruptionbudgets patch":                "the same",
		"policy/poddisruptionbudgets delete":               "the same",
		"/namespaces list":                                 "the same as watch, where the API server cannot stream what there is",
		"/namespaces watch":                                "of --namespace-selector (TestNamespacesBySelector)",
		"/namespaces get":                                  "whether a webhook's namespace is being deleted (TestNamespaceDeletedWithJournal)",
		"pbxhook.io/pbxwebhooks get":                       "controller-runtime's own, where an object is not in its cache",
		"pbxhook.io/pbxwebhooks patch":                     "the finalizer of one whose events in NATS go with it (TestNATSJournal)",
		"pbxhook.io/pbxwebhooks/finalizers update":         "blockOwnerDeletion, where OwnerReferencesPermissionEnforcement is on",
		"events.k8s.io/events patch":                       "an event that is said again",
		"authentication.k8s.io/tokenreviews create":        "who asks for metrics (cmd/operator)",
		"authorization.k8s.io/subjectaccessreviews create": "whether they may (cmd/operator)",
	}
	role, err := testenv.OperatorRole()
	require.NoError(t, err)
	for _, rule := range role.Rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				right := fmt.Sprintf("%s/%s %s", rule.APIGroups[0], resource, verb)
				if verb == "list" && used[fmt.Sprintf("%s/%s watch", rule.APIGroups[0], resource)] {
					continue // informers list where the API server cannot stream what there is
				}
				if verb == "create" && used[fmt.Sprintf("%s/%s patch", rule.APIGroups[0], resource)] {
					continue // server-side apply makes objects by patch, and asks for both rights
				}
				if !used[right] && unreached[right] == "" {
					t.Errorf("nothing used %q: take it out of the markers, or say here why it is needed", right)
				}
			}
		}
	}
}

// right is what a request needs to be allowed, as in a role: group/resource verb; empty for discovery.
func right(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	group := ""
	switch {
	case parts[0] == "apis" && len(parts) > 3:
		group, parts = parts[1], parts[3:]
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	default:
		return ""
	}
	if len(parts) >= 3 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	verb := map[string]string{http.MethodPost: "create", http.MethodPatch: "patch", http.MethodPut: "update", http.MethodDelete: "delete"}[r.Method]
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") == "true":
		verb = "watch"
	case r.Method == http.MethodGet && len(parts) == 1:
		verb = "list"
	case r.Method == http.MethodGet:
		verb = "get"
	}
	resource := parts[0]
	if len(parts) == 3 {
		resource += "/" + parts[2]
	}
	return group + "/" + resource + " " + verb
}
