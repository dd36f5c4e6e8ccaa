package journal

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxNames is how many names of a provider's events a journal counts apart. What comes under more names than that is
// counted as OtherName.
const MaxNames = 64

// OtherName is under which a journal counts events whose names it does not count apart.
const OtherName = "other"

// maxName is how long a counted name is at most, in bytes.
const maxName = 128

// NameCount is how many events came under one of the provider's own names.
type NameCount struct {
	Name         string    `json:"name"`
	Count        int64     `json:"count"`
	LastReceived time.Time `json:"lastReceived"`
}

// nameCounts counts events by name. It is a value, which is copied and compared like the counters that it is part of.
type nameCounts struct {
	used   int
	counts [MaxNames]NameCount
}

// add counts events of a name, the last of which was received at a time. Events without a name are not counted.
func (c *nameCounts) add(name string, count int64, at time.Time) {
	if name == "" {
		return
	}
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "")
	}
	one := c.find(name)
	one.Count += count
	if at.After(one.LastReceived) {
		one.LastReceived = at
	}
}

// find returns the count of a name, which is added where it is new and there is room for it.
func (c *nameCounts) find(name string) *NameCount {
	for i := range c.counts[:c.used] {
		if c.counts[i].Name == name {
			return &c.counts[i]
		}
	}
	if c.used >= MaxNames-1 && name != OtherName {
		return c.find(OtherName)
	}
	c.counts[c.used].Name = strings.Clone(name) // not the request that it was cut from
	c.used++
	return &c.counts[c.used-1]
}

// addAll adds the counts of another one.
func (c *nameCounts) addAll(o *nameCounts) {
	for i := range o.counts[:o.used] {
		c.add(o.counts[i].Name, o.counts[i].Count, o.counts[i].LastReceived)
	}
}

// list returns the counts, sorted by name.
func (c *nameCounts) list() []NameCount {
	all := slices.Clone(c.counts[:c.used])
	slices.SortFunc(all, func(a, b NameCount) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// MarshalJSON writes the counts as a list.
func (c nameCounts) MarshalJSON() ([]byte, error) {
	return json.Marshal(c.counts[:c.used]) //nolint:wrapcheck // the caller says what it writes
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *nameCounts) UnmarshalJSON(data []byte) error {
	var all []NameCount
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("read the counts by name: %w", err)
	}
	*c = nameCounts{}
	for _, one := range all {
		c.add(one.Name, one.Count, one.LastReceived)
	}
	return nil
}
