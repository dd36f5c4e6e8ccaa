package receiver_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/certs"
)

// withTLS is a manifest whose receiver terminates TLS.
func withTLS(manifest string) string {
	return strings.Replace(manifest, "spec:\n", "spec:\n  receiver: {tls: {secretRef: {name: tls}}}\n", 1)
}

func certificateSecret(crt, key string) string {
	indent := func(pem string) string {
		return "    " + strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n    ") + "\n"
	}
	return "---\napiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: crm}\nstringData:\n" +
		"  tls.crt: |\n" + indent(crt) + "  tls.key: |\n" + indent(key)
}

// sendTLS sends an event over https to a receiver that shows a certificate.
func (r *running) sendTLS(crt string) error {
	r.t.Helper()
	pool := x509.NewCertPool()
	require.True(r.t, pool.AppendCertsFromPEM([]byte(crt)))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	request, err := http.NewRequest(http.MethodPost, "https://"+r.hooksTLS+"/hooks/crm/callcenter/Cdr", strings.NewReader(`{"unique_id":"1.2"}`))
	require.NoError(r.t, err)
	request.SetBasicAuth("pbx", "first")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	require.Equal(r.t, http.StatusAccepted, response.StatusCode)
	return response.Body.Close()
}

// TestCertificateIsReloaded: https is served with the certificate of the last good configuration.
func TestCertificateIsReloaded(t *testing.T) {
	s := newTarget(t)
	plain := withTLS(manifest("first", at("a", s.URL+"/a")))
	crt, key := certs.SelfSigned(t, "127.0.0.1")
	r := start(t, plain+certificateSecret(crt, key))
	r.eventually("https is served", func() bool { return r.sendTLS(crt) == nil })
	require.Equal(t, 202, r.send("first"), "http goes on")

	reload := func(manifest string) {
		before := r.report().ConfigHash
		r.write(manifest)
		r.eventually("the configuration is in force", func() bool { return r.report().ConfigHash != before })
	}
	next, nextKey := certs.SelfSigned(t, "127.0.0.1")
	reload(plain + certificateSecret(next, nextKey))
	require.NoError(t, r.sendTLS(next))
	require.Error(t, r.sendTLS(crt))

	reload(plain + certificateSecret(crt, nextKey)) // they do not belong together
	require.NoError(t, r.sendTLS(next), "the last good certificate stays in use")

	reload(manifest("first", at("a", s.URL+"/a")))
	require.Error(t, r.sendTLS(next), "without receiver.tls there is no https")
}

// TestHTTPSComesWithItsCertificate: a webhook whose certificate is not there yet takes events over http, and
// over https as soon as it is.
func TestHTTPSComesWithItsCertificate(t *testing.T) {
	s := newTarget(t)
	plain := withTLS(manifest("first", at("a", s.URL+"/a")))
	r := start(t, plain)
	crt, key := certs.SelfSigned(t, "127.0.0.1")
	require.Error(t, r.sendTLS(crt))
	require.Equal(t, 202, r.send("first"))
	r.write(plain + certificateSecret(crt, key))
	r.eventually("https is served", func() bool { return r.sendTLS(crt) == nil })
}
