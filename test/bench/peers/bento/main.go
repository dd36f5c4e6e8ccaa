// Bento with what the benchmark needs of it, and with one output of our own: bento's http_client keeps two idle
// connections a host and has no setting for more, so that most requests would make a new one. kept_http does
// the same and keeps as many as it uses.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	_ "github.com/warpstreamlabs/bento/public/components/io"
	_ "github.com/warpstreamlabs/bento/public/components/nats"
	_ "github.com/warpstreamlabs/bento/public/components/pure"
	"github.com/warpstreamlabs/bento/public/service"
)

func main() {
	spec := service.NewConfigSpec().Field(service.NewStringField("url")).Field(service.NewOutputMaxInFlightField())
	err := service.RegisterOutput("kept_http", spec, func(conf *service.ParsedConfig, _ *service.Resources) (service.Output, int, error) {
		url, err := conf.FieldString("url")
		if err != nil {
			return nil, 0, err
		}
		most, err := conf.FieldMaxInFlight()
		return &output{url: url, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: most}}}, most, err
	})
	if err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}

type output struct {
	url    string
	client *http.Client
}

// Connect implements service.Output.
func (o *output) Connect(context.Context) error { return nil }

// Write implements service.Output.
func (o *output) Write(ctx context.Context, message *service.Message) error {
	body, err := message.AsBytes()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := o.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("expected 2xx from the target, got %d", response.StatusCode)
	}
	return nil
}

// Close implements service.Output.
func (o *output) Close(context.Context) error {
	o.client.CloseIdleConnections()
	return nil
}
