package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReadyMeansNow: when `kubectl wait` returns, an event is taken at once, under this generation.
func TestReadyMeansNow(t *testing.T) {
	c := setUp(t)
	for i := range 5 {
		name := fmt.Sprintf("now-%d", i)
		c.webhook(name, toEcho)
		c.wait(name)
		status, answer := c.send(name, http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"1.1"}`)
		require.Equal(t, http.StatusAccepted, status, answer)
	}
	// each change is in force when it is Ready again: here, which method is taken
	for _, method := range []string{"GET", "POST", "GET"} {
		c.webhook("now-0", toEcho+"  method: "+method+"\n")
		c.wait("now-0")
		status, answer := c.send("now-0", http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"1.1"}`)
		want := map[string]int{"GET": http.StatusMethodNotAllowed, "POST": http.StatusAccepted}[method]
		require.Equal(t, want, status, answer)
	}
}

// TestNotReady: while nothing can be accepted under this generation, `kubectl wait` does not return.
func TestNotReady(t *testing.T) {
	c := setUp(t)
	c.webhook("steady", toEcho)
	c.wait("steady")
	for name, tc := range map[string]struct{ patch, reason string }{
		"no node takes it":   {`{"spec":{"receiver":{"pod":{"nodeSelector":{"no":"such-node"}}}}}`, "Unschedulable"},
		"no such Secret":     {`{"spec":{"credentials":{"secretRef":{"name":"nowhere"}},"receiver":{"pod":null}}}`, "SecretNotFound"},
		"no such time zone":  {`{"spec":{"timeZone":"Asia/Nowhere"}}`, "InvalidSpec"},
		"no TLS certificate": {`{"spec":{"receiver":{"pod":null,"tls":{"secretRef":{"name":"nowhere"}}}}}`, "SecretNotFound"},
	} {
		t.Run(name, func(t *testing.T) {
			c.webhook("steady", toEcho) // what kubectl patch adds, kubectl apply leaves: it is taken out
			c.kubectl("", "-n", c.namespace, "delete", "pbx", "steady", "--timeout=60s")
			c.eventually("its objects go", func() bool {
				_, err := c.try("", "-n", c.namespace, "get", "deployment", "steady-receiver")
				return err != nil
			})
			c.webhook("steady", toEcho)
			c.wait("steady")
			c.kubectl("", "-n", c.namespace, "patch", "pbx", "steady", "--type=merge", "-p", tc.patch)
			out, err := c.try("", "-n", c.namespace, "wait", "--for=condition=Ready", "pbx/steady", "--timeout=5s")
			require.Error(t, err, out)
			c.eventually("it says why", func() bool {
				status, reason := c.condition("steady", "Ready")
				return status == "False" && reason == tc.reason
			})
			t.Log(c.jsonpath("pbx", "steady", `{.status.conditions[?(@.type=="Ready")].message}`))
		})
	}
}
