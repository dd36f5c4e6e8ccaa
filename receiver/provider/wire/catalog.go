package wire

import (
	"strings"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// Event is an event of a provider, and how it becomes canonical.
type Event struct {
	Name  string // as the provider spells it
	Type  event.Type
	Rules Rules
	// Becomes says for the documentation what it becomes, where that is not one type.
	Becomes string
	// Then is what no rule can say.
	Then func(e *event.Event)
}

// Decode fills an event that this one becomes from the fields of its request. A request that has none of them is no event,
// whatever it is called.
func (p *Event) Decode(e *event.Event, f Fields, s Settings) {
	e.Name, e.Type = p.Name, p.Type
	if found := p.Rules.Fill(e, f, s); !found && len(p.Rules) > 0 {
		Nothing(e, f)
		return
	}
	if p.Then != nil {
		p.Then(e)
	}
	e.Complete()
}

// Catalog is all events of a provider.
type Catalog struct {
	Events []Event
	byName map[string]*Event
}

// NewCatalog makes a catalog.
func NewCatalog(events ...Event) *Catalog {
	c := &Catalog{Events: events, byName: map[string]*Event{}}
	for i := range events {
		c.byName[PlainName(events[i].Name)] = &events[i]
	}
	return c
}

// Find is the event of a name, however it is written, or nil.
func (c *Catalog) Find(name string) *Event { return c.byName[PlainName(name)] }

// Names are the events' names.
func (c *Catalog) Names() []string {
	names := make([]string, len(c.Events))
	for i := range c.Events {
		names[i] = c.Events[i].Name
	}
	return names
}

// Nothing makes an event unparsed whose request has none of its fields.
func Nothing(e *event.Event, f Fields) {
	e.Type, e.Call = event.Unparsed, nil
	e.Reason = "expected fields of the event " + e.Name + ", got none: " + f.Came()
}

// Came says which keys came, so that one sees which are meant.
func (f Fields) Came() string {
	if keys := f.Keys(); len(keys) > 0 {
		return "the keys that came are " + strings.Join(keys, ", ") + ", and they are not known or hold only placeholders"
	}
	return "no keys came"
}
