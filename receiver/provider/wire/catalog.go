package wire

import "github.com/pbxhook/pbxhook/receiver/event"

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

// Decode fills an event that this one becomes from the fields of its request.
func (p *Event) Decode(e *event.Event, f Fields, s Settings) {
	e.Name, e.Type = p.Name, p.Type
	p.Rules.Fill(e, f, s)
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
		c.byName[Plain(events[i].Name)] = &events[i]
	}
	return c
}

// Find is the event of a name, however it is written, or nil.
func (c *Catalog) Find(name string) *Event { return c.byName[Plain(name)] }

// Names are the events' names.
func (c *Catalog) Names() []string {
	names := make([]string, len(c.Events))
	for i := range c.Events {
		names[i] = c.Events[i].Name
	}
	return names
}
