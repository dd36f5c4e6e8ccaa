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
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/http1"
	"github.com/pbxhook/pbxhook/receiver/render"
)

// maxReply is how much of a target's answer is read, so that its connection can be used again, and
// shownReply how much of it a dead letter keeps.
const (
	maxReply   = 64 << 10
	shownReply = 1 << 10
)

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
	options Options
	plain   *http1.Transport // for http
	secure  *http.Transport  // for https
	signers []*standardwebhooks.Webhook
	last    atomic.Pointer[target] // that a request went to
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
	dialer := &net.Dialer{Timeout: options.Timeout, KeepAlive: 30 * time.Second, ControlContext: options.Networks.guard}
	d.plain = &http1.Transport{Dial: dialer.DialContext}
	d.secure = &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    options.Timeout,
		MaxIdleConnsPerHost:    options.Connections,
		MaxConnsPerHost:        options.Connections,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // gzip offered costs more than it saves
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
	return d, nil
}

// Close lets idle connections go.
func (d *Deliverer) Close() {
	d.plain.CloseIdleConnections()
	d.secure.CloseIdleConnections()
}

// Deliver makes one attempt. id is the event's, the same at every attempt. It does not use r after it returned.
func (d *Deliverer) Deliver(ctx context.Context, id string, r *render.Request) dispatch.Outcome {
	deadline, body := time.Now().Add(d.options.Timeout), r.Body
	if strings.HasPrefix(r.URL, "https:") {
		limited, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		ctx, body = limited, bytes.Clone(r.Body) // which net/http may still send when an early answer is here
	}
	request, err := d.request(ctx, r, body)
	if err != nil {
		return dispatch.Outcome{Result: dispatch.Refused, Reason: "make the request: " + plain(err)}
	}
	d.dress(request, id, r)
	response, err := d.send(request, deadline)
	if err != nil {
		return dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: plain(err)}
	}
	defer func() { _ = response.Body.Close() }() // nothing depends on it: the answer has been judged
	var reply bytes.Buffer
	if response.ContentLength == 0 {
		return judge(response)
	}
	if _, err := io.Copy(&reply, io.LimitReader(response.Body, maxReply)); err != nil && response.StatusCode/100 != 2 {
		return dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: plain(err)}
	}
	outcome := judge(response)
	if outcome.Result != dispatch.Delivered {
		outcome.Reply = strings.ToValidUTF8(string(reply.Next(shownReply)), "\ufffd")
	}
	return outcome
}

// request is what http.NewRequestWithContext makes, but that a URL is read once: it is mostly the same.
func (d *Deliverer) request(ctx context.Context, r *render.Request, body []byte) (*http.Request, error) {
	last := d.last.Load()
	if last == nil || last.text != r.URL {
		plain, err := http.NewRequest(r.Method, r.URL, nil)
		if err != nil {
			return nil, err
		}
		last = &target{text: r.URL, url: plain.URL, host: plain.Host}
		d.last.Store(last)
	}
	request := &http.Request{
		Method: r.Method, URL: last.url, Host: last.host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, usualHeaders), ContentLength: int64(len(body)), Body: http.NoBody,
	}
	if len(body) > 0 {
		request.Body = io.NopCloser(bytes.NewReader(body))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return request.WithContext(ctx), nil
}

// usualHeaders is how many headers a request has, about.
const usualHeaders = 8

// target is where requests go, read.
type target struct {
	text, host string
	url        *url.URL
}

// send makes the request. A redirect is an answer like any other: following it would send a call's data to a
// place that nobody configured.
func (d *Deliverer) send(request *http.Request, deadline time.Time) (*http.Response, error) {
	if request.URL.Scheme == "http" {
		return d.plain.Do(request, deadline)
	}
	return d.secure.RoundTrip(request)
}

// dress puts on the headers that every request to the target carries.
func (d *Deliverer) dress(request *http.Request, id string, r *render.Request) {
	for name, values := range r.Header {
		request.Header[name] = values
	}
	for name, values := range d.options.Headers {
		request.Header[name] = values
	}
	if request.Header.Get("User-Agent") == "" {
		request.Header.Set("User-Agent", "pbxhook")
	}
	switch {
	case d.options.Bearer != "":
		request.Header.Set("Authorization", "Bearer "+d.options.Bearer)
	case d.options.BasicUser != "" || d.options.BasicPass != "":
		request.SetBasicAuth(d.options.BasicUser, d.options.BasicPass)
	}
	request.Header.Set("Webhook-Id", id)
	if len(d.signers) == 0 {
		return
	}
	now := time.Now()
	var signatures []string
	for _, signer := range d.signers {
		if signature, err := signer.Sign(id, now, r.Body); err == nil {
			signatures = append(signatures, signature)
		}
	}
	request.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	request.Header.Set("Webhook-Signature", strings.Join(signatures, " "))
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

// refusedAddressError says that a target's name leads to an address that targets may not have.
type refusedAddressError struct{ address netip.Addr }

func (e *refusedAddressError) Error() string {
	return fmt.Sprintf("the target's address %s is not allowed: loopback, link-local, unspecified and multicast addresses are refused, and those that the operator denies", e.address)
}
