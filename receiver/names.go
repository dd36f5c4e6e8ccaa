package receiver

import (
	"slices"
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
)

// byName returns the counts by name for the status, sorted by name: the expected names come first where there are more
// than the status takes, also those of which no event came.
func byName(counts []journal.NameCount, expected []string) []v1alpha1.EventCount {
	var all, others []v1alpha1.EventCount
	for _, c := range counts {
		one := v1alpha1.EventCount{Name: c.Name, Count: c.Count, LastReceivedTime: timeOf(c.LastReceived)}
		if slices.Contains(expected, c.Name) {
			all = append(all, one)
		} else {
			others = append(others, one)
		}
	}
	for _, name := range expected {
		if !slices.ContainsFunc(counts, func(c journal.NameCount) bool { return c.Name == name }) {
			all = append(all, v1alpha1.EventCount{Name: name})
		}
	}
	slices.SortFunc(others, func(a, b v1alpha1.EventCount) int { return int(min(max(b.Count-a.Count, -1), 1)) })
	all = append(all, others...)
	all = all[:min(len(all), journal.MaxNames)]
	slices.SortFunc(all, func(a, b v1alpha1.EventCount) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// closedNames returns the counts by the provider's event names in a closed set, for metrics: the names of its catalogue,
// and other for all that it has besides.
func closedNames(counts []journal.NameCount, p v1alpha1.Provider) map[string]int64 {
	all := map[string]int64{journal.OtherName: 0}
	for _, name := range provider.Names(p) {
		all[name] = 0
	}
	for _, c := range counts {
		name := c.Name
		if _, known := all[name]; !known {
			name = journal.OtherName
		}
		all[name] += c.Count
	}
	return all
}
