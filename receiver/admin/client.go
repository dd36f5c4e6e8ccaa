package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	clientTimeout = time.Minute // a replay may look at every kept event
	maxAnswer     = 64 << 20
)

// Client asks a receiver's admin API.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client of the admin API at a URL.
func NewClient(base string) (*Client, error) {
	address, err := url.Parse(base)
	if err != nil || address.Scheme != "http" || address.Host == "" {
		return nil, errors.New("expected the admin API's URL, such as http://127.0.0.1:9091")
	}
	return &Client{base: strings.TrimSuffix(base, "/"), http: &http.Client{Timeout: clientTimeout}}, nil
}

// Webhooks are those of the receiver.
func (c *Client) Webhooks(ctx context.Context) (all []Webhook, err error) {
	err = c.do(ctx, http.MethodGet, "/api/v1/webhooks", nil, &all)
	return all, err
}

// Status says how webhooks fare.
func (c *Client) Status(ctx context.Context) (all []Status, err error) {
	err = c.do(ctx, http.MethodGet, "/api/v1/status", nil, &all)
	return all, err
}

// Calls searches for calls.
func (c *Client) Calls(ctx context.Context, q CallQuery) (page CallPage, err error) {
	err = c.do(ctx, http.MethodGet, "/api/v1/calls?"+q.Values().Encode(), nil, &page)
	return page, err
}

// Call shows one.
func (c *Client) Call(ctx context.Context, w Webhook, call, event string) (detail CallDetail, err error) {
	err = c.do(ctx, http.MethodGet, w.path("/call?"+url.Values{"id": {call}, "event": {event}}.Encode()), nil, &detail)
	return detail, err
}

// Follow tells what happens, until ctx ends or the receiver does.
func (c *Client) Follow(ctx context.Context, tell func(Update) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/api/v1/follow", nil)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	response, err := http.DefaultClient.Do(request) // whose answers may last
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("expected an answer of pbxhook's admin API, got %s: is this its address?", response.Status)
	}
	for decoder := json.NewDecoder(response.Body); ; {
		var u Update
		if err := decoder.Decode(&u); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the receiver ended: %w", err)
		}
		if err := tell(u); err != nil {
			return err
		}
	}
}

// DeadLetters lists what was given up.
func (c *Client) DeadLetters(ctx context.Context, w Webhook, s Selection, limit int) (all []DeadLetter, err error) {
	query := url.Values{"target": {s.Target}, "call": {s.Call}, "limit": {strconv.Itoa(limit)}}
	err = c.do(ctx, http.MethodGet, w.path("/dead-letters?"+query.Encode()), nil, &all)
	return all, err
}

// DeadLetter shows one.
func (c *Client) DeadLetter(ctx context.Context, w Webhook, target, id string) (letter DeadLetter, err error) {
	err = c.do(ctx, http.MethodGet, w.path("/dead-letters/"+url.PathEscape(target)+"/"+url.PathEscape(id)), nil, &letter)
	return letter, err
}

// DropDeadLetters deletes some, or in a dry run says which.
func (c *Client) DropDeadLetters(ctx context.Context, w Webhook, r DropRequest) (answer Drop, err error) {
	err = c.do(ctx, http.MethodPost, w.path("/dead-letters/drop"), r, &answer)
	return answer, err
}

// Replay hands events to targets again, or in a dry run says which.
func (c *Client) Replay(ctx context.Context, w Webhook, r ReplayRequest) (answer Replay, err error) {
	err = c.do(ctx, http.MethodPost, w.path("/replay"), r, &answer)
	return answer, err
}

// Replays lists the replays that are running, and the last ones that have ended, the newest first.
func (c *Client) Replays(ctx context.Context, w Webhook) (all []ReplayState, err error) {
	err = c.do(ctx, http.MethodGet, w.path("/replays"), nil, &all)
	return all, err
}

// CancelReplay ends a replay.
func (c *Client) CancelReplay(ctx context.Context, w Webhook, id string) (answer ReplayState, err error) {
	err = c.do(ctx, http.MethodPost, w.path("/replays/"+url.PathEscape(id)+"/cancel"), struct{}{}, &answer)
	return answer, err
}

func (w Webhook) path(rest string) string {
	return "/api/v1/webhooks/" + url.PathEscape(w.Namespace) + "/" + url.PathEscape(w.Name) + rest
}

// unreachable says what to do about it.
func (c *Client) unreachable(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nobody listens at %s: expected a receiver there, such as a running `pbxhook run --admin %s`", c.base, strings.TrimPrefix(c.base, "http://"))
	}
	return fmt.Errorf("ask the receiver: %w", err)
}

func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	var sent io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write the request: %w", err)
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, sent)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the receiver's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var p problem
		if json.Unmarshal(text, &p) == nil && p.Error != "" {
			if response.StatusCode == http.StatusNotFound {
				return fmt.Errorf("%w: %s", ErrNotFound, strings.TrimPrefix(p.Error, ErrNotFound.Error()+": "))
			}
			return errors.New(p.Error)
		}
		return fmt.Errorf("expected an answer of pbxhook's admin API, got %s: is this its address?", response.Status)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("expected JSON of pbxhook's admin API: %w", err)
	}
	return nil
}
