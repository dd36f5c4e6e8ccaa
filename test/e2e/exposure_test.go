package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/certs"
	"github.com/pbxhook/pbxhook/test/testenv"
)

// TestNodePortWithTLS: an on-premises PBX calls a node, over TLS that the receiver terminates.
func TestNodePortWithTLS(t *testing.T) {
	c := setUp(t)
	node := c.kubectl("", "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	crt, key := certs.SelfSigned(t, node)
	secret := func(crt, key string) {
		folder := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(folder, "tls.crt"), []byte(crt), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "tls.key"), []byte(key), 0o600))
		manifest := c.kubectl("", "-n", c.namespace, "create", "secret", "tls", "pbx-tls", "--dry-run=client", "-o", "yaml",
			"--cert", filepath.Join(folder, "tls.crt"), "--key", filepath.Join(folder, "tls.key"))
		c.kubectl(manifest, "-n", c.namespace, "apply", "-f", "-")
	}
	secret(crt, key)
	c.webhook("outside", toEcho+"  expose: {service: {type: NodePort}}\n  receiver: {tls: {secretRef: {name: pbx-tls}}}\n")
	c.wait("outside")
	url := c.jsonpath("pbx", "outside", "{.status.address.url}")
	require.Regexp(t, "^https://"+node+":[0-9]+/hooks/"+c.namespace+"/outside$", url)
	trust := func(crt string) {
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM([]byte(crt)))
		c.tls = &tls.Config{RootCAs: pool}
	}
	trust(crt)
	status, answer := c.sendTo(url, http.MethodPost, "/Cdr", "right", `{"unique_id":"1.1"}`)
	require.Equal(t, http.StatusAccepted, status, answer)

	pods := c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=outside", "-o", "name")
	next, nextKey := certs.SelfSigned(t, node)
	secret(next, nextKey)
	trust(next)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c.tls}}
	c.effect("a renewed certificate", func() bool {
		response, err := client.Head(url)
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	})
	require.Equal(t, pods, c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=outside", "-o", "name"), "no pod restarts")
}

// TestGatewayAPIInstalledLater: the operator sees it by itself, and makes the route.
func TestGatewayAPIInstalledLater(t *testing.T) {
	c := setUp(t)
	c.webhook("routed", toEcho+"  expose: {gateway: {parentRefs: [{name: public}], hostnames: [pbx.example.com]}}\n")
	c.eventually("the missing API is named", func() bool {
		status, reason := c.condition("routed", "Ready")
		return status == "False" && reason == "APINotInstalled"
	})
	restarts := func() string {
		return c.kubectl("", "-n", "pbxhook-system", "get", "pods", "-l", "app.kubernetes.io/name=pbxhook-operator", "-o", "jsonpath={.items[*].metadata.name} {.items[*].status.containerStatuses[0].restartCount}")
	}
	before := restarts()
	crds := testenv.GatewayAPI(t)
	var apply []string
	for _, name := range []string{"gatewayclasses", "gateways", "httproutes"} {
		apply = append(apply, "-f", filepath.Join(crds, "gateway.networking.k8s.io_"+name+".yaml"))
	}
	c.kubectl("", append([]string{"apply", "--server-side"}, apply...)...)
	t.Cleanup(func() {
		_, _ = c.try("", "-n", c.namespace, "delete", "pbx", "routed", "--timeout=60s")
		_, _ = c.try("", append([]string{"delete", "--ignore-not-found"}, apply...)...)
	})
	c.eventually("the route is made", func() bool {
		_, err := c.try("", "-n", c.namespace, "get", "httproute", "routed-receiver")
		return err == nil
	})
	c.eventually("the missing Gateway is named", func() bool {
		_, reason := c.condition("routed", "Ready")
		return reason == "GatewayNotReady"
	})
	t.Log(c.jsonpath("pbx", "routed", `{.status.conditions[?(@.type=="Exposed")].message}`))
	require.Equal(t, before, restarts(), "its container did not end")
}

// TestHPA: the autoscaler finds the scale subresource, and the pods by its selector.
func TestHPA(t *testing.T) {
	c := setUp(t)
	c.wait("simotel")
	c.kubectl(fmt.Sprintf(`
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: simotel, namespace: %s}
spec:
  scaleTargetRef: {apiVersion: pbxhook.io/v1alpha1, kind: PBXWebhook, name: simotel}
  minReplicas: 1
  maxReplicas: 1
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
`, c.namespace), "apply", "-f", "-")
	c.eventually("it can scale", func() bool {
		return c.jsonpath("hpa", "simotel", `{.status.conditions[?(@.type=="AbleToScale")].status}`) == "True"
	})
	require.Equal(t, "1", c.jsonpath("hpa", "simotel", "{.status.currentReplicas}"))
	out, err := c.try("", "-n", c.namespace, "scale", "pbx/simotel", "--replicas=2")
	require.Error(t, err)
	require.Contains(t, out, "more than one replica needs journal.nats")
}
