package provider

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/provider/acefone"
	"github.com/pbxhook/pbxhook/receiver/provider/sim"
	"github.com/pbxhook/pbxhook/receiver/provider/simotel"
	"github.com/pbxhook/pbxhook/receiver/provider/voipstudio"
)

// PBX is a simulated PBX of one make.
type PBX interface {
	// Events are the names of what it can send.
	Events() []string
	// Scenarios are the calls that it can play.
	Scenarios() []sim.Scenario
	// Quirks are the ways in which it can differ from its manual.
	Quirks() []sim.Quirk
	// Call makes the n-th call.
	Call(n int, began time.Time, random *rand.Rand) sim.Call
	// Message composes one event of a call.
	Message(c *sim.Call, step sim.Step) (sim.Message, error)
}

// Simulator sends what a PBX would send, true to its wire format.
type Simulator struct {
	PBX
	method             string
	username, password string
	quirks             []sim.Quirk
	seed               uint64
}

// Simulation is which PBX to simulate, and how it is set.
type Simulation struct {
	Provider v1alpha1.Provider
	Version  v1alpha1.Version // Simotel's; empty: Rest4
	Method   string           // GET or POST; empty: POST
	Form     bool             // Acefone's Content-Type, where it is not JSON
	Quirks   []string
	// Username and Password go into the Authorization header, as PBXs send them; empty: none.
	Username, Password string
	// Seed makes the same calls again.
	Seed uint64
}

// NewSimulator makes a simulator of a PBX.
func NewSimulator(o Simulation) (*Simulator, error) {
	s := &Simulator{method: strings.ToUpper(o.Method), username: o.Username, password: o.Password, seed: o.Seed}
	if s.method == "" {
		s.method = http.MethodPost
	}
	if s.method != http.MethodGet && s.method != http.MethodPost {
		return nil, fmt.Errorf("expected GET or POST as the method, got %q", o.Method)
	}
	get := s.method == http.MethodGet
	switch o.Provider {
	case v1alpha1.Simotel:
		if o.Version != "" && !slices.Contains(Versions(v1alpha1.Simotel), o.Version) {
			return nil, fmt.Errorf("expected a version of Simotel's webhooks (G2, G3, G4, Rest2, Rest3, Rest4), got %q", o.Version)
		}
		s.PBX = simotel.Simulator{Version: o.Version, Get: get}
	case v1alpha1.VoIPstudio:
		if get {
			return nil, fmt.Errorf("VoIPstudio sends POST alone, got GET")
		}
		s.PBX = voipstudio.Simulator{}
	case v1alpha1.Acefone:
		s.PBX = acefone.Simulator{Get: get, Form: o.Form}
	default:
		return nil, fmt.Errorf("expected Simotel, VoIPstudio or Acefone as the provider, got %q", o.Provider)
	}
	for _, name := range o.Quirks {
		i := slices.IndexFunc(s.Quirks(), func(q sim.Quirk) bool { return q.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("expected one of the quirks of %s (%s), got %q", o.Provider, names(s.Quirks(), func(q sim.Quirk) string { return q.Name }), name)
		}
		s.quirks = append(s.quirks, s.Quirks()[i])
	}
	return s, nil
}

// Versions are those of a provider's webhooks; one without a name where it has no versions.
func Versions(p v1alpha1.Provider) []v1alpha1.Version {
	if p == v1alpha1.Simotel {
		return []v1alpha1.Version{v1alpha1.G2, v1alpha1.G3, v1alpha1.G4, v1alpha1.Rest2, v1alpha1.Rest3, v1alpha1.Rest4}
	}
	return []v1alpha1.Version{""}
}

func names[T any](all []T, name func(T) string) string {
	list := make([]string, len(all))
	for i, one := range all {
		list[i] = name(one)
	}
	return strings.Join(list, ", ")
}

// Scenario finds a scenario by name.
func (s *Simulator) Scenario(name string) (sim.Scenario, error) {
	for _, scenario := range s.Scenarios() {
		if scenario.Name == name {
			return scenario, nil
		}
	}
	return sim.Scenario{}, fmt.Errorf("expected one of the calls that this PBX can make (%s), got %q", names(s.Scenarios(), func(c sim.Scenario) string { return c.Name }), name)
}

// Call makes the n-th call; the same seed and number make the same call.
func (s *Simulator) Call(n int, began time.Time) sim.Call {
	return s.PBX.Call(n, began, s.random(n))
}

func (s *Simulator) random(n int) *rand.Rand { return rand.New(rand.NewPCG(s.seed, uint64(n))) }

// Event composes one event of a call, quirks included.
func (s *Simulator) Event(c *sim.Call, step sim.Step) (sim.Message, error) {
	m, err := s.Message(c, step)
	if err != nil {
		return m, err
	}
	for _, quirk := range s.quirks {
		if quirk.Change != nil {
			quirk.Change(&m, c)
		}
	}
	return m, nil
}

// Single is the step of one event on its own: at the moment of a call at which it comes.
func (s *Simulator) Single(event string) (sim.Step, error) {
	c := s.Call(1, time.Unix(0, 0))
	m, err := s.Message(&c, sim.Step{Event: event})
	if err != nil {
		return sim.Step{}, err
	}
	for _, scenario := range s.Scenarios() {
		for _, step := range scenario.Steps {
			if step.Event == m.Event {
				return sim.Step{Event: m.Event, At: step.At}, nil
			}
		}
	}
	return sim.Step{Event: m.Event}, nil
}

// Play composes the messages of the n-th call, in the order in which they are to be sent.
func (s *Simulator) Play(scenario sim.Scenario, n int, c *sim.Call) ([]sim.Message, error) {
	messages := make([]sim.Message, 0, len(scenario.Steps))
	for _, step := range scenario.Steps {
		m, err := s.Event(c, step)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return sim.Reorder(messages, s.quirks, s.random(n)), nil
}

// Request is a message on its way to a webhook's URL.
func (s *Simulator) Request(to string, m sim.Message) (*http.Request, error) {
	address, err := url.Parse(to)
	if err != nil || (address.Scheme != "http" && address.Scheme != "https") || address.Host == "" {
		return nil, fmt.Errorf("expected the webhook's http or https URL, got %q", to)
	}
	if m.Path != "" {
		address.Path = strings.TrimSuffix(address.Path, "/") + "/" + m.Path
	}
	body := m.Fields.Encode(m.Style)
	if m.Style == sim.Query { // the address may have a query of its own
		address.RawQuery = strings.TrimPrefix(address.RawQuery+"&"+body, "&")
		body = ""
	}
	content, header, err := m.Body(body)
	if err != nil {
		return nil, fmt.Errorf("write the body: %w", err)
	}
	request, err := http.NewRequest(s.method, address.String(), bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	request.Header = header
	if s.username != "" || s.password != "" {
		request.SetBasicAuth(s.username, s.password)
	}
	return request, nil
}
