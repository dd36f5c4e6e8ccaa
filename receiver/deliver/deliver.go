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
// shownReply how much of it dead letters and the delivery log keep.
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
	last    atomic.Pointer[place] // that a request went to
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

// Deliver makes one attempt. id is the event's, the same at every attempt. r is used up by it, and not used any
// more after it returned.
func (d *Deliverer) Deliver(ctx context.Context, id string, r *render.Request) dispatch.Outcome {
	target, err := d.locate(r.URL)
	if err != nil {
		return dispatch.Outcome{Result: dispatch.Refused, Reason: "read the target's URL: it is none"} // err may show it
	}
	d.dress(r.Header, id, r.Body)
	deadline := time.Now().Add(d.options.Timeout)
	ctx, cancel := d.limit(ctx, target, deadline)
	defer cancel()
	response, err := d.send(ctx, target, r, deadline)
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

// locate reads a URL: mostly it is the last one.
func (d *Deliverer) locate(text string) (*url.URL, error) {
	if last := d.last.Load(); last != nil && last.text == text {
		return last.url, nil
	}
	read, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	d.last.Store(&place{text: text, url: read})
	return read, nil
}

// place is where a request goes.
type place struct {
	text string
	url  *url.URL
}

// limit is the context of an attempt, where its deadline must be in it.
func (d *Deliverer) limit(ctx context.Context, target *url.URL, deadline time.Time) (context.Context, context.CancelFunc) {
	if target.Scheme == "http" {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline)
}

// send makes the request. A redirect is an answer like any other: following it would send a call's data to a
// place that nobody configured.
func (d *Deliverer) send(ctx context.Context, target *url.URL, r *render.Request, deadline time.Time) (*http.Response, error) {
	if target.Scheme == "http" {
		return d.plain.Do(ctx, &http1.Request{Method: r.Method, URL: target, Header: r.Header, Body: r.Body}, deadline)
	}
	body := bytes.Clone(r.Body) // which net/http may still send when an early answer is here
	request, err := http.NewRequestWithContext(ctx, r.Method, r.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	request.Header = r.Header
	return d.secure.RoundTrip(request)
}

// dress puts on the headers that every request to the target carries.
func (d *Deliverer) dress(header http.Header, id string, body []byte) {
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
