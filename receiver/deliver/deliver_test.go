package deliver_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/networks"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/render"
)

func options() deliver.Options {
	return deliver.Options{Timeout: 5 * time.Second, Connections: 2, Networks: deliver.Networks{Loopback: true}}
}

func attempt(t *testing.T, o deliver.Options, url string) dispatch.Outcome {
	t.Helper()
	d, err := deliver.New(o)
	require.NoError(t, err)
	defer d.Close()
	return d.Deliver(context.Background(), "evt_1", &render.Request{Method: "POST", URL: url, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("hello")})
}

func TestVerdicts(t *testing.T) {
	for code, want := range map[int]dispatch.Outcome{
		200: {Result: dispatch.Delivered}, 204: {Result: dispatch.Delivered}, 299: {Result: dispatch.Delivered},
		301: {Result: dispatch.Retry}, 307: {Result: dispatch.Retry},
		400: {Result: dispatch.Refused}, 401: {Result: dispatch.Retry}, 403: {Result: dispatch.Retry}, 404: {Result: dispatch.Retry},
		408: {Result: dispatch.Retry}, 409: {Result: dispatch.Retry}, 410: {Result: dispatch.Refused}, 422: {Result: dispatch.Refused},
		429: {Result: dispatch.Retry, Unavailable: true}, 500: {Result: dispatch.Retry}, 501: {Result: dispatch.Retry},
		502: {Result: dispatch.Retry, Unavailable: true}, 503: {Result: dispatch.Retry, Unavailable: true}, 504: {Result: dispatch.Retry, Unavailable: true},
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(code)
			}))
			defer server.Close()
			got := attempt(t, options(), server.URL+"/here?secret=1")
			require.Equal(t, want.Result, got.Result)
			require.Equal(t, want.Unavailable, got.Unavailable)
			require.True(t, got.Answered)
			require.Equal(t, code, got.Status)
			if want.Result != dispatch.Delivered {
				require.Equal(t, fmt.Sprintf("%d from the target", code), got.Reason)
				require.Equal(t, 7*time.Second, got.RetryAfter)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client went
		<-r.Context().Done()
	}))
	defer silent.Close()
	breaks := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer breaks.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	for name, tc := range map[string]struct{ url, want string }{
		"refused":        {closed.URL, "connection refused"},
		"time-out":       {silent.URL, "no answer from the target in time"},
		"closed early":   {breaks.URL, "closed the connection without an answer"},
		"unknown issuer": {secure.URL, "signed by an unknown authority"},
		"no such host":   {"http://nowhere.invalid/", "look up the target's name"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Timeout = time.Minute
			if tc.url == silent.URL {
				o.Timeout = 200 * time.Millisecond
			}
			got := attempt(t, o, tc.url+"?token=hush")
			require.Equal(t, dispatch.Retry, got.Result)
			require.True(t, got.Unavailable)
			require.False(t, got.Answered)
			require.Contains(t, got.Reason, tc.want)
			require.NotContains(t, got.Reason, "hush")
		})
	}
}

func TestWhatATargetGets(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	o := options()
	o.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	o.Headers = http.Header{"X-Tenant": {"7"}}
	o.Bearer = "token"
	o.Signing = []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}
	require.Equal(t, dispatch.Delivered, attempt(t, o, server.URL).Result)
	require.Equal(t, "hello", string(body))
	require.Equal(t, "7", got.Header.Get("X-Tenant"))
	require.Equal(t, "Bearer token", got.Header.Get("Authorization"))
	require.Equal(t, "text/plain", got.Header.Get("Content-Type"))
	require.Equal(t, "evt_1", got.Header.Get("Webhook-Id"))
	for _, secret := range o.Signing { // by the standard's own library
		verifier, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		require.NoError(t, verifier.Verify(body, got.Header))
	}

	o.Bearer, o.BasicUser, o.BasicPass = "", "u", "p"
	require.Equal(t, dispatch.Delivered, attempt(t, o, server.URL).Result)
	user, password, ok := got.BasicAuth()
	require.True(t, ok)
	require.Equal(t, "u:p", user+":"+password)
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	for want, change := range map[string]func(*deliver.Options){
		"tls.ca":              func(o *deliver.Options) { o.CA = []byte("no") },
		"tls.clientSecretRef": func(o *deliver.Options) { o.Certificate = []byte("no") },
		"X-Key":               func(o *deliver.Options) { o.Headers = http.Header{"X-Key": {"hush\n"}} },
		"Authorization":       func(o *deliver.Options) { o.Bearer = "hush\x00" },
		"signing":             func(o *deliver.Options) { o.Signing = []string{"whsec_!hush!"} },
	} {
		o := options()
		change(&o)
		_, err := deliver.New(o)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hush")
	}
}

func TestForbiddenAddresses(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:169.254.169.254]", "[::ffff:127.0.0.1]", "0.0.0.0", "224.0.0.1", "[fe80::1]", "[64:ff9b::a9fe:a9fe]", "localhost"} {
		o := options()
		o.Networks = deliver.Networks{}
		got := attempt(t, o, "http://"+address+":1/")
		require.Equal(t, dispatch.Retry, got.Result)
		require.Contains(t, got.Reason, "is not allowed", address)
	}
}

func TestNetworks(t *testing.T) {
	parse := func(texts ...string) []netip.Prefix {
		all, err := networks.Parse(texts)
		require.NoError(t, err)
		return all
	}
	for name, tc := range map[string]struct {
		networks deliver.Networks
		address  string
		want     bool
	}{
		"public":                            {deliver.Networks{}, "192.0.2.7", true},
		"private":                           {deliver.Networks{}, "10.1.2.3", true},
		"denied":                            {deliver.Networks{Deny: parse("10.0.0.0/8")}, "10.1.2.3", false},
		"denied, written as IPv6":           {deliver.Networks{Deny: parse("10.0.0.0/8")}, "::ffff:10.1.2.3", false},
		"denied, by way of NAT64":           {deliver.Networks{Deny: parse("10.0.0.0/8")}, "64:ff9b::a01:203", false},
		"one address":                       {deliver.Networks{Deny: parse(" 10.1.2.3")}, "10.1.2.3", false},
		"its neighbour":                     {deliver.Networks{Deny: parse("10.1.2.3")}, "10.1.2.4", true},
		"allowed within the denied":         {deliver.Networks{Deny: parse("10.0.0.0/8"), Allow: parse("10.1.0.0/16")}, "10.1.2.3", true},
		"allowed though link-local":         {deliver.Networks{Allow: parse("169.254.7.0/24")}, "169.254.7.1", true},
		"metadata service":                  {deliver.Networks{}, "169.254.169.254", false},
		"this machine":                      {deliver.Networks{}, "127.0.0.1", false},
		"this machine, in run":              {deliver.Networks{Loopback: true}, "::1", true},
		"nowhere":                           {deliver.Networks{Loopback: true}, "0.0.0.0", false},
		"link-local with a zone":            {deliver.Networks{}, "fe80::1%eth0", false},
		"multicast":                         {deliver.Networks{}, "ff02::1", false},
		"loopback denied also in run":       {deliver.Networks{Loopback: true, Deny: parse("127.0.0.0/8")}, "127.0.0.1", false},
		"AWS metadata":                      {deliver.Networks{}, "fd00:ec2::254", false},
		"AWS pod identity":                  {deliver.Networks{}, "fd00:ec2::23", false},
		"its neighbour, a private network":  {deliver.Networks{}, "fd00:ec3::254", true},
		"Google metadata":                   {deliver.Networks{}, "fd20:ce::254", false},
		"Alibaba metadata":                  {deliver.Networks{}, "100.100.100.200", false},
		"carrier-grade NAT":                 {deliver.Networks{}, "100.100.100.201", true},
		"Azure":                             {deliver.Networks{}, "168.63.129.16", false},
		"Oracle metadata":                   {deliver.Networks{}, "192.0.0.192", false},
		"metadata in run":                   {deliver.Networks{Loopback: true}, "100.100.100.200", false},
		"metadata, allowed by name":         {deliver.Networks{Allow: parse("100.100.100.200")}, "100.100.100.200", true},
		"metadata, as NAT64":                {deliver.Networks{}, "64:ff9b::a83f:8110", false},
		"link-local, as 6to4":               {deliver.Networks{}, "2002:a9fe:a9fe::1", false},
		"public, as 6to4":                   {deliver.Networks{}, "2002:808:808::1", true},
		"link-local, a Teredo client":       {deliver.Networks{}, "2001:0:808:808::5601:5601", false},
		"loopback, a Teredo server":         {deliver.Networks{}, "2001:0:7f00:1::f7f7:f7f7", false},
		"public, as Teredo":                 {deliver.Networks{}, "2001:0:808:808::f7f7:f7f7", true},
		"link-local, as local NAT64":        {deliver.Networks{}, "64:ff9b:1::a9fe:a9fe", false},
		"link-local, as local NAT64 of 48":  {deliver.Networks{}, "64:ff9b:1:a9fe:a9:fe00::", false},
		"link-local, as local NAT64 of 64":  {deliver.Networks{}, "64:ff9b:1:0:a9:fea9:fe00::", false},
		"public, as local NAT64":            {deliver.Networks{}, "64:ff9b:1::808:808", true},
		"loopback, IPv4-compatible":         {deliver.Networks{}, "::127.0.0.1", false},
		"public, IPv4-compatible":           {deliver.Networks{}, "::8.8.8.8", true},
		"link-local, IPv4-translated":       {deliver.Networks{}, "::ffff:0:169.254.169.254", false},
		"denied, IPv4-translated":           {deliver.Networks{Deny: parse("10.0.0.0/8")}, "::ffff:0:10.1.2.3", false},
		"denied, as 6to4":                   {deliver.Networks{Deny: parse("10.0.0.0/8")}, "2002:a01:203::", false},
		"denied and allowed, as 6to4":       {deliver.Networks{Deny: parse("10.0.0.0/8"), Allow: parse("10.1.0.0/16")}, "2002:a01:203::", true},
		"a journal's server on this host":   {deliver.Networks{Private: true}, "127.0.0.1", true},
		"a journal's server, private":       {deliver.Networks{Private: true, Deny: parse("10.0.0.0/8")}, "10.1.2.3", true},
		"a journal's server, private, IPv6": {deliver.Networks{Private: true, Deny: parse("fd00::/8")}, "fd01::1", true},
		"a journal's server, metadata":      {deliver.Networks{Private: true}, "fd00:ec2::254", false},
		"a journal's server, link-local":    {deliver.Networks{Private: true}, "169.254.169.254", false},
		"a journal's server, denied":        {deliver.Networks{Private: true, Deny: parse("192.0.2.0/24")}, "192.0.2.7", false},
		"a journal's server, public":        {deliver.Networks{Private: true}, "192.0.2.7", true},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, tc.networks.Allows(netip.MustParseAddr(tc.address))) })
	}
}
