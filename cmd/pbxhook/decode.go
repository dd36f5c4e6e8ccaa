package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/receiver/render"
)

func decodeCommand() *cobra.Command {
	var version, method, path, query, contentType, timeZone, region string
	var headers []string
	var fields map[string]string
	cmd := &cobra.Command{
		Use:   "decode PROVIDER < body",
		Short: "Show the CloudEvent that a PBX's request becomes",
		Example: "  pbxhook decode Simotel --region IR --query 'event_name=Cdr&cuid=1.1' </dev/null\n" +
			"  pbxhook decode Acefone --time-zone Asia/Kolkata --path /call-missed --header Content-Encoding=gzip <body.gz",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, location, err := pbx(args[0], timeZone)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), event.MaxBody+1))
			if err != nil {
				return fmt.Errorf("read the body from standard input: %w", err)
			}
			if len(body) > event.MaxBody {
				return fmt.Errorf("expected a body of at most %d bytes", event.MaxBody)
			}
			header, err := parseHeaders(headers)
			if err != nil {
				return err
			}
			if contentType != "" || header.Get("Content-Type") == "" {
				header.Set("Content-Type", contentType)
			}
			if body, err = wire.Decompress(header, body, event.MaxBody, nil); err != nil {
				return fmt.Errorf("read the body: %w", err)
			}
			request := &event.Request{Method: method, Path: path, Query: query, Body: body, ReceivedAt: time.Now().UTC(), Header: header}
			settings := wire.Settings{Version: v1alpha1.Version(version), Location: location, Region: region, Fields: fields}
			return decodeTo(cmd.OutOrStdout(), p, request, settings)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&version, "version", "", "version of Simotel's webhooks: G2 G3 G4 Rest2 Rest3 Rest4")
	flags.StringVar(&method, "method", http.MethodPost, "HTTP method")
	flags.StringVar(&path, "path", "", "what follows the webhook's own path, such as /NewState")
	flags.StringVar(&query, "query", "", "query of the URL, without the question mark")
	flags.StringVar(&contentType, "content-type", "", "Content-Type header")
	flags.StringArrayVar(&headers, "header", nil, "another header as name=value, such as Content-Encoding=gzip; may be given several times")
	flags.StringVar(&timeZone, "time-zone", "UTC", "IANA time zone of times without an offset")
	flags.StringVar(&region, "region", "", "ISO country of numbers that are not international")
	flags.StringToStringVar(&fields, "field", nil, "Acefone: canonical field to the customer's own key, as in spec.fields; may be given several times")
	return cmd
}

// parseHeaders reads headers that are given as name=value.
func parseHeaders(headers []string) (http.Header, error) {
	all := http.Header{}
	for _, header := range headers {
		name, value, ok := strings.Cut(header, "=")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("--header: expected name=value, got %q", header)
		}
		all.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return all, nil
}

// pbx reads what the commands about one PBX share: its provider and its --time-zone.
func pbx(name, timeZone string) (v1alpha1.Provider, *time.Location, error) {
	p, err := provider.Find(name)
	if err != nil {
		return "", nil, err
	}
	location, err := time.LoadLocation(timeZone)
	if err != nil {
		return "", nil, fmt.Errorf("--time-zone: expected an IANA time zone such as Asia/Tehran, got %q", timeZone)
	}
	return p, location, nil
}

func decodeTo(out io.Writer, p v1alpha1.Provider, request *event.Request, settings wire.Settings) error {
	e := provider.Decode(p, request, settings)
	if e.NeedsAnswer != "" {
		e.Type, e.Reason = event.Unparsed, e.NeedsAnswer
	}
	record := &journal.Record{ID: wire.First(e.ID, uuid.NewString()), Request: *request}
	text := render.NewCloudEvent(render.Source("default", "decode"), record, &e).AppendJSON(nil)
	_, err := fmt.Fprintln(out, string(text))
	return err
}
