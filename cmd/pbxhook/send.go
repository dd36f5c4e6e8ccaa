package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/sim"
)

// pbxFlags are what the commands that play a PBX share.
type pbxFlags struct {
	to, version, method, timeZone string
	form                          bool
	quirks                        []string
}

func (f *pbxFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.to, "to", "", "URL of the webhook")
	flags.StringVar(&f.version, "version", "", "version of Simotel's webhooks: G2 G3 G4 Rest2 Rest3 Rest4 (default Rest4)")
	flags.StringVar(&f.method, "method", http.MethodPost, "GET or POST")
	flags.BoolVar(&f.form, "form", false, "Acefone: a form in place of JSON")
	flags.StringVar(&f.timeZone, "time-zone", "UTC", "IANA time zone in which the PBX writes times")
	flags.StringSliceVar(&f.quirks, "quirk", nil, "a way in which the PBX differs from its manual; may be given several times (see simulate PROVIDER --list)")
}

// simulator makes the PBX that the flags describe, and the URL without a username and password, which
// go where PBXs send them.
func (f *pbxFlags) simulator(name string, seed uint64) (s *provider.Simulator, to string, zone *time.Location, err error) {
	p, zone, err := pbx(name, f.timeZone)
	if err != nil {
		return nil, "", nil, err
	}
	address, err := url.Parse(f.to)
	if err != nil {
		return nil, "", nil, errors.New("--to: expected the webhook's http or https URL")
	}
	o := provider.Simulation{Provider: p, Version: v1alpha1.Version(f.version), Method: f.method, Form: f.form, Quirks: f.quirks, Seed: seed}
	if address.User != nil {
		o.Username = address.User.Username()
		o.Password, _ = address.User.Password()
		address.User = nil
	}
	s, err = provider.NewSimulator(o)
	return s, address.String(), zone, err
}

func sendCommand() *cobra.Command {
	var pbx pbxFlags
	var call string
	var set []string
	cmd := &cobra.Command{
		Use:   "send PROVIDER EVENT --to URL",
		Short: "Send one event as a PBX would, and show the answer",
		Long: "Send one event as a PBX would, and show the answer. A username and password go into the URL\n" +
			"(http://user:password@host/hooks/namespace/name), as in the panels of PBXs; a token into its path.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			s, to, zone, err := pbx.simulator(args[0], uint64(now.UnixNano()))
			if err != nil {
				return err
			}
			fields, err := parseSet(set)
			if err != nil {
				return err
			}
			c := s.Call(1, now.In(zone))
			if call != "" {
				c.ID = call
			}
			step, err := s.Single(args[1])
			if err != nil {
				return err
			}
			c.Until(step.At, now)
			m, err := s.Event(&c, step)
			if err != nil {
				return err
			}
			sim.With(fields...)(&c, &m.Fields)
			request, err := s.Request(to, m)
			if err != nil {
				return err
			}
			return post(cmd, request)
		},
	}
	pbx.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&call, "call", "", "id of the call (default: a new one)")
	flags.StringArrayVar(&set, "set", nil, "replace a field: name=value; may be given several times")
	if err := cmd.MarkFlagRequired("to"); err != nil {
		panic(err) // the flag is named a few lines above
	}
	return cmd
}

// parseSet reads name=value into names and values; a value that is JSON is taken as such.
func parseSet(set []string) ([]any, error) {
	var fields []any
	for _, one := range set {
		name, value, found := strings.Cut(one, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("--set: expected name=value, got %q", one)
		}
		field := any(value)
		if strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[") {
			var parsed any
			if err := json.Unmarshal([]byte(value), &parsed); err == nil {
				field = parsed
			}
		}
		fields = append(fields, name, field)
	}
	return fields, nil
}

func post(cmd *cobra.Command, request *http.Request) error {
	client := &http.Client{Timeout: 30 * time.Second}
	response, err := client.Do(request.WithContext(cmd.Context()))
	if err != nil {
		return fmt.Errorf("send the event: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	cmd.Printf("%s\n%s\n", response.Status, strings.TrimSpace(string(body)))
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("the event was not taken: %s", response.Status)
	}
	return nil
}
