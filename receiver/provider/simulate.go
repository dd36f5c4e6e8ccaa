package provider

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/provider/acefone"
	"github.com/pbxhook/pbxhook/receiver/provider/simotel"
	"github.com/pbxhook/pbxhook/receiver/provider/voipstudio"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Simulator sends what a PBX would send, true to its wire format.
type Simulator struct {
	Provider v1alpha1.Provider
	Version  v1alpha1.Version // Simotel's; empty: Rest4
	Method   string           // empty: POST
	// Username and Password are put into the Authorization header, as PBXs do; empty: none.
	Username, Password string
}

// Request makes the request of one event about a call, for the webhook at a URL. set replaces fields.
func (s Simulator) Request(to, name, call, eventID string, at time.Time, set map[string]any) (*http.Request, error) {
	address, err := url.Parse(to)
	if err != nil || (address.Scheme != "http" && address.Scheme != "https") || address.Host == "" {
		return nil, fmt.Errorf("expected the webhook's http or https URL, got %q", to)
	}
	var fields map[string]any
	path, asJSON := "", true
	switch s.Provider {
	case v1alpha1.Simotel:
		name, fields, err = simotel.Compose(name, call, at)
		if strings.HasPrefix(string(s.Version), "Rest") || s.Version == "" {
			path = name
		}
		asJSON = s.Version == "" || strings.HasSuffix(string(s.Version), "4")
	case v1alpha1.VoIPstudio:
		_, fields, err = voipstudio.Compose(name, call, eventID, at)
	case v1alpha1.Acefone:
		var trigger acefone.Trigger
		trigger, fields, err = acefone.Compose(name, call, at)
		path = trigger.Path
	}
	if err != nil {
		return nil, err
	}
	maps.Copy(fields, set)
	if path != "" {
		address.Path = strings.TrimSuffix(address.Path, "/") + "/" + path
	}
	return s.encode(address, fields, asJSON)
}

// encode puts fields where the method and version have them: GET in the query, POST in the body.
func (s Simulator) encode(address *url.URL, fields map[string]any, asJSON bool) (*http.Request, error) {
	var body []byte
	contentType := ""
	switch {
	case s.Method == http.MethodGet:
		if address.RawQuery != "" {
			address.RawQuery += "&"
		}
		address.RawQuery += parameters(fields)
	case asJSON:
		body, contentType = wire.Marshal(fields), "application/json"
	default:
		body, contentType = []byte(parameters(fields)), "application/x-www-form-urlencoded"
	}
	method := s.Method
	if method == "" {
		method = http.MethodPost
	}
	request, err := http.NewRequest(method, address.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if s.Username != "" || s.Password != "" {
		request.SetBasicAuth(s.Username, s.Password)
	}
	return request, nil
}

func parameters(fields map[string]any) string {
	values := url.Values{}
	for name, value := range fields {
		switch value := value.(type) {
		case string:
			values.Set(name, value)
		case nil:
			values.Set(name, "")
		case float64:
			values.Set(name, strconv.FormatFloat(value, 'f', -1, 64))
		default:
			values.Set(name, strings.Trim(string(wire.Marshal(value)), `"`))
		}
	}
	return values.Encode()
}

// CallStep is one event of a whole call.
type CallStep struct {
	Event string
	Set   map[string]any
}

// Call are the events of a whole call, in order.
func (s Simulator) Call() []CallStep {
	var steps []CallStep
	switch s.Provider {
	case v1alpha1.Simotel:
		for _, step := range simotel.Call {
			steps = append(steps, CallStep(step))
		}
	case v1alpha1.VoIPstudio:
		for _, name := range voipstudio.Call {
			steps = append(steps, CallStep{Event: name})
		}
	case v1alpha1.Acefone:
		for _, name := range acefone.Call {
			steps = append(steps, CallStep{Event: name})
		}
	}
	return steps
}

// CallID makes the id of the n-th call as the provider would write it.
func (s Simulator) CallID(at time.Time, n int) string {
	if s.Provider == v1alpha1.VoIPstudio {
		return strconv.FormatInt(at.Unix()*1000+int64(n), 10)
	}
	return fmt.Sprintf("%d.%d", at.Unix(), n) // Asterisk's uniqueid
}

// EventNames are the provider's own names of its events.
func EventNames(p v1alpha1.Provider) []string {
	switch p {
	case v1alpha1.Simotel:
		return slices.Clone(simotel.Names)
	case v1alpha1.VoIPstudio:
		return slices.Clone(voipstudio.Names)
	}
	names := make([]string, 0, len(acefone.Triggers))
	for _, t := range acefone.Triggers {
		names = append(names, t.Name)
	}
	return names
}
