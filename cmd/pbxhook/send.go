package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/provider"
)

func sendCommand() *cobra.Command {
	var to, version, method, call, timeZone string
	var set []string
	cmd := &cobra.Command{
		Use:   "send PROVIDER EVENT --to URL",
		Short: "Send one event as a PBX would, and show the answer",
		Long: "Send one event as a PBX would, and show the answer. A username and password go into the URL\n" +
			"(http://user:password@host/hooks/namespace/name), as in the panels of PBXs; a token into its path.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, location, err := pbx(args[0], timeZone)
			if err != nil {
				return err
			}
			fields, err := parseSet(set)
			if err != nil {
				return err
			}
			s := provider.Simulator{Provider: p, Version: v1alpha1.Version(version), Method: strings.ToUpper(method)}
			s, to, err = withUserInfo(s, to)
			if err != nil {
				return err
			}
			now := time.Now().In(location)
			if call == "" {
				call = s.CallID(now, 1)
			}
			request, err := s.Request(to, args[1], call, uuid.NewString(), now, fields)
			if err != nil {
				return err
			}
			return post(cmd, request)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "URL of the webhook")
	flags.StringVar(&version, "version", "", "version of Simotel's webhooks (default Rest4)")
	flags.StringVar(&method, "method", http.MethodPost, "GET or POST")
	flags.StringVar(&call, "call", "", "id of the call (default: a new one)")
	flags.StringVar(&timeZone, "time-zone", "UTC", "IANA time zone of the times that Acefone sends")
	flags.StringArrayVar(&set, "set", nil, "replace a field: name=value; may be given several times")
	if err := cmd.MarkFlagRequired("to"); err != nil {
		panic(err) // the flag is named a few lines above
	}
	return cmd
}

// withUserInfo moves a URL's username and password to where PBXs send them.
func withUserInfo(s provider.Simulator, to string) (provider.Simulator, string, error) {
	address, err := url.Parse(to)
	if err != nil {
		return s, "", fmt.Errorf("--to: expected the webhook's http or https URL")
	}
	if address.User != nil {
		s.Username = address.User.Username()
		s.Password, _ = address.User.Password()
		address.User = nil
	}
	return s, address.String(), nil
}

// parseSet reads name=value; a value that is JSON is taken as such.
func parseSet(set []string) (map[string]any, error) {
	fields := map[string]any{}
	for _, one := range set {
		name, value, found := strings.Cut(one, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("--set: expected name=value, got %q", one)
		}
		fields[name] = value
		if strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[") {
			var parsed any
			if err := json.Unmarshal([]byte(value), &parsed); err == nil {
				fields[name] = parsed
			}
		}
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
