package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOperatorMetricsAreGuarded: over https, and for those alone who may get /metrics.
func TestOperatorMetricsAreGuarded(t *testing.T) {
	c := setUp(t)
	c.kubectl(fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: scraper, namespace: %[1]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: pbxhook-metrics-reader}
subjects: [{kind: ServiceAccount, name: scraper, namespace: %[1]s}]
`, c.namespace), "apply", "-f", "-")
	t.Cleanup(func() { _, _ = c.try("", "delete", "clusterrolebinding", c.namespace) })
	url := "https://" + c.kubectl("", "-n", "pbxhook-system", "get", "service", "pbxhook-operator-metrics", "-o", "jsonpath={.spec.clusterIP}") + ":8443/metrics"
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // its certificate is its own
	get := func(token string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := client.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	require.Equal(t, http.StatusUnauthorized, get(""))
	require.Equal(t, http.StatusForbidden, get(c.kubectl("", "-n", c.namespace, "create", "token", "default")))
	require.Equal(t, http.StatusOK, get(c.kubectl("", "-n", c.namespace, "create", "token", "scraper")))
}

// TestLeaseIsReleased: an operator that ends lets another one begin at once.
func TestLeaseIsReleased(t *testing.T) {
	c := setUp(t)
	holder := func() string {
		return c.kubectl("", "-n", "pbxhook-system", "get", "lease", "operator.pbxhook.io", "-o", "jsonpath={.spec.holderIdentity}")
	}
	c.eventually("one is the leader", func() bool { return holder() != "" })
	c.kubectl("", "-n", "pbxhook-system", "scale", "deployment/pbxhook-operator", "--replicas=0")
	t.Cleanup(func() {
		_, _ = c.try("", "-n", "pbxhook-system", "scale", "deployment/pbxhook-operator", "--replicas=1")
	})
	c.eventually("the Lease is let go", func() bool { return holder() == "" })
}

// TestRolesOfPeople: the cluster's own roles include PBXWebhooks.
func TestRolesOfPeople(t *testing.T) {
	c := setUp(t)
	for _, role := range []string{"view", "edit", "admin"} {
		c.kubectl("", "-n", c.namespace, "create", "rolebinding", role, "--clusterrole="+role, "--user="+role)
	}
	may := func(user, verb, resource string) string {
		args := append([]string{"-n", c.namespace, "auth", "can-i", "--as=" + user, verb}, strings.Fields(resource)...)
		out, _ := c.try("", args...) // it fails for no
		return out
	}
	c.eventually("the roles are aggregated", func() bool { return may("view", "list", "pbxwebhooks.pbxhook.io") == "yes" })
	for _, tc := range []struct{ user, verb, resource, want string }{
		{"view", "create", "pbxwebhooks.pbxhook.io", "no"},
		{"edit", "create", "pbxwebhooks.pbxhook.io", "yes"},
		{"edit", "update", "pbxwebhooks.pbxhook.io --subresource=scale", "yes"},
		{"edit", "patch", "pbxwebhooks.pbxhook.io --subresource=status", "no"},
		{"admin", "deletecollection", "pbxwebhooks.pbxhook.io", "yes"},
	} {
		require.Equal(t, tc.want, may(tc.user, tc.verb, tc.resource), "%v", tc)
	}
}
