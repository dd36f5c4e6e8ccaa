// Package deliver makes one attempt to hand a rendered event to a target, and says what came of it.
//
// Whether and when to try again is not its business. It must not know what the event is.
package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/net/http/httpguts"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/render"
)

// maxReply is how much of a target's answer is read, so that its connection can be used again, and
// shownReply how much of it dead letters and the delivery log keep.
const (
	maxReply   = 64 << 10
	shownReply = 1 << 10
)

// pingTimeout is after how long without a frame a connection of HTTP/2 is tried, and how long that may take.
const pingTimeout = 15 * time.Second

// Options are how a target is spoken to.
type Options struct {
	Timeout     time.Duration
	Connections int // kept open
	Headers     http.Header
	BasicUser   string
	BasicPass   string
	Bearer      string
	// Signing are the Standard Webhooks secrets to sign with, the newest first.
	Signing []string
	CA      []byte // PEM; empty: the system's
	// Certificate to appear with, PEM; empty: none.
	Certificate, Key []byte
	// Networks that the target may be in.
	Networks Networks
}

// Deliverer speaks to one target.
type Deliverer struct {
	options   Options
	transport *http.Transport
	signers   []*standardwebhooks.Webhook
}

// New makes the deliverer of a target. Errors name what in the options cannot be used.
func New(options Options) (*Deliverer, error) {
	d := &Deliverer{options: options}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(options.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(options.CA) {
			return nil, errors.New("tls.ca: expected certificates in PEM, got none")
		}
	}
	if len(options.Certificate) > 0 {
		pair, err := tls.X509KeyPair(options.Certificate, options.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.clientSecretRef: read tls.crt and tls.key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	for _, secret := range options.Signing {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, errors.New("signing: expected secrets in base64, with or without whsec_ before it") // err may show the secret
		}
		d.signers = append(d.signers, signer)
	}
	dialer := &net.Dialer{Timeout: options.Timeout, KeepAlive: 30 * time.Second, ControlContext: options.Networks.Guard}
	d.transport = &http.Transport{
		DialContext:            dialWith(dialer),
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    options.Timeout,
		MaxIdleConnsPerHost:    options.Connections,
		MaxConnsPerHost:        options.Connections,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // gzip offered costs more than it saves
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout}, // or a dead one takes all requests
	}
	if err := d.checkHeaders(); err != nil {
		return nil, err
	}
	return d, nil
}

// checkHeaders checks what the configuration puts on every request, so that its author hears of it and not each event.
func (d *Deliverer) checkHeaders() error {
	header := http.Header{}
	d.setHeaders(header, "", nil)
	if name, ok := validFields(header); !ok {
		return fmt.Errorf("headers and auth: expected values without control characters and names of letters, digits and hyphens, got others in header %q", name)
	}
	return nil
}

// Close lets idle connections go.
func (d *Deliverer) Close() {
	d.transport.CloseIdleConnections()
}

// Deliver makes one attempt. id is the event's, the same at every attempt. r is used up by it, and not used any
// more after it returned.
func (d *Deliverer) Deliver(ctx context.Context, id string, r *render.Request) dispatch.Outcome {
	ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
	defer cancel()
	request, err := d.request(ctx, id, r)
	if err != nil {
		return dispatch.Outcome{Result: dispatch.Refused, Reason: err.Error()}
	}
	response, err := d.transport.RoundTrip(request) // a redirect is a response like any other: nobody configured where it leads
	if err != nil {
		return dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: plain(err)}
	}
	defer func() { _ = response.Body.Close() }() // nothing depends on it: the answer has been judged
	if response.ContentLength == 0 {
		return judge(response)
	}
	var reply bytes.Buffer
	if _, err := io.Copy(&reply, io.LimitReader(response.Body, maxReply)); err != nil && response.StatusCode/100 != 2 {
		return dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: plain(err)}
	}
	outcome := judge(response)
	if reply.Len() > 0 {
		outcome.Reply = strings.ToValidUTF8(string(reply.Next(shownReply)), "\ufffd")
	}
	return outcome
}

// request makes the request of an attempt. What net/http would reject before it sends anything is an error here: it
// concerns this event and not the target. Errors show neither the URL nor a value.
func (d *Deliverer) request(ctx context.Context, id string, r *render.Request) (*http.Request, error) {
	body := bytes.Clone(r.Body) // net/http may still be sending it when an early response is here
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, chosen), r.Method, r.URL, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("make the request: the target's URL or method cannot be read")
	}
	if scheme := request.URL.Scheme; scheme != "http" && scheme != "https" || request.URL.Hostname() == "" {
		return nil, errors.New("make the request: expected a target's URL of http or https with a host")
	}
	d.setHeaders(r.Header, id, body)
	if name, ok := validFields(r.Header); !ok {
		return nil, fmt.Errorf("make the request: header %q is not valid HTTP", name)
	}
	request.Header = r.Header
	request.Header[replayable] = nil
	return request, nil
}

// replayable is a header without values, which is not sent. It tells net/http that a request may be sent again where
// the target closed a kept connection just as the request went out on it: Webhook-Id says that it is the same.
const replayable = "X-Idempotency-Key"

// maxShownName is how much of an invalid header's name an error shows.
const maxShownName = 64

// validFields reports whether all headers are valid by RFC 9110; if not, name is of one that is not.
func validFields(header http.Header) (name string, ok bool) {
	for name, values := range header {
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, invalidValue) {
			return strings.ToValidUTF8(name[:min(len(name), maxShownName)], "\ufffd"), false
		}
	}
	return "", true
}

func invalidValue(value string) bool { return !httpguts.ValidHeaderFieldValue(value) }

// setHeaders sets the headers that every request to the target carries.
func (d *Deliverer) setHeaders(header http.Header, id string, body []byte) {
	for name, values := range d.options.Headers {
		header[name] = values
	}
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", "pbxhook")
	}
	switch {
	case d.options.Bearer != "":
		header.Set("Authorization", "Bearer "+d.options.Bearer)
	case d.options.BasicUser != "" || d.options.BasicPass != "":
		(&http.Request{Header: header}).SetBasicAuth(d.options.BasicUser, d.options.BasicPass)
	}
	id = render.HeaderText(id) // what is signed is what the target reads
	header.Set("Webhook-Id", id)
	if len(d.signers) == 0 {
		return
	}
	now := time.Now()
	var signatures []string
	for _, signer := range d.signers {
		if signature, err := signer.Sign(id, now, body); err == nil {
			signatures = append(signatures, signature)
		}
	}
	header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	header.Set("Webhook-Signature", strings.Join(signatures, " "))
}

// verdicts say what an answer means. A status that is not listed goes by its class: 2xx is
// delivered, 4xx refuses this event for good, all else is tried again.
var verdicts = map[int]dispatch.Outcome{
	http.StatusUnauthorized:       {Result: dispatch.Retry},                    // a credential that somebody will mend
	http.StatusForbidden:          {Result: dispatch.Retry},                    // likewise
	http.StatusNotFound:           {Result: dispatch.Retry},                    // a route that is being deployed
	http.StatusProxyAuthRequired:  {Result: dispatch.Retry},                    // the way there, not the event
	http.StatusRequestTimeout:     {Result: dispatch.Retry},                    // it did not take it in
	http.StatusConflict:           {Result: dispatch.Retry},                    // it works on something that this waits for
	http.StatusLocked:             {Result: dispatch.Retry},                    // likewise
	http.StatusTooEarly:           {Result: dispatch.Retry},                    // by its name
	http.StatusTooManyRequests:    {Result: dispatch.Retry, Unavailable: true}, // the target as a whole is busy
	http.StatusBadGateway:         {Result: dispatch.Retry, Unavailable: true}, // nobody is behind the proxy
	http.StatusServiceUnavailable: {Result: dispatch.Retry, Unavailable: true}, // it says so itself
	http.StatusLoopDetected:       {Result: dispatch.Refused},                  // it came here before, and would again
	http.StatusGatewayTimeout:     {Result: dispatch.Retry, Unavailable: true}, // nobody answers behind the proxy
}

func judge(response *http.Response) dispatch.Outcome {
	outcome, listed := verdicts[response.StatusCode]
	if !listed {
		switch response.StatusCode / 100 {
		case 2:
			outcome.Result = dispatch.Delivered
		case 4:
			outcome.Result = dispatch.Refused
		default:
			outcome.Result = dispatch.Retry
		}
	}
	outcome.Answered, outcome.Status = true, response.StatusCode
	if outcome.Result != dispatch.Delivered {
		outcome.Reason = fmt.Sprintf("%d from the target", response.StatusCode)
		outcome.RetryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	return outcome
}

// retryAfter reads the header in both its forms, seconds and a date.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 && seconds < 1<<30 {
		return time.Duration(seconds) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// plain says what went wrong without the URL, whose query may hold a secret or a caller's number.
func plain(err error) string {
	var refused *refusedAddressError
	if errors.As(err, &refused) {
		return refused.Error()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "look up the target's name: no such host, or no answer from DNS"
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer from the target in time"
	}
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "the target's certificate is signed by an unknown authority"
	case errors.As(err, &hostname):
		return "the target's certificate is for another host"
	case errors.As(err, &invalid):
		return "the target's certificate is not valid"
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return "the target answers without TLS, and its URL is https"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the target closed the connection without an answer"
	}
	if errors.Is(err, context.Canceled) {
		return "the receiver is shutting down"
	}
	return "the target's answer is not HTTP"
}

// refusedAddressError says that a name leads to an address that may not be dialled.
type refusedAddressError struct{ address netip.Addr }

func (e *refusedAddressError) Error() string {
	return fmt.Sprintf("the address %s is not allowed: loopback, link-local, unspecified and multicast addresses and those of clouds' metadata services are refused, and those that the operator denies", e.address)
}
