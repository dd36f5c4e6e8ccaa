// Package drift tells why an object differs from what its controller applied: by its managed fields, which say who
// wrote each field last. It is pure.
//
// It must not know a cluster, or what a PBXWebhook is.
package drift

import (
	"fmt"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Drift is how an object differs from what was applied to it.
type Drift struct {
	// Changed are fields with another value than the applied one, or without one, which a person or another
	// controller wrote or removed.
	Changed []Field
	// Added are fields that were not applied and that a person or another controller wrote.
	Added []Field
	// Accepted are fields that are still the owner's in the managed fields, with another value: the API server's
	// admission rewrote them, and would do so again.
	Accepted []Field

	exact []fieldpath.Path // of Changed: maps with one owner, whose content is replaced as a whole
}

// Field is one field of an object, and who wrote it.
type Field struct {
	Path fieldpath.Path
	// Manager is who wrote the field; empty where nobody owns it, as after it was removed.
	Manager string
}

// String is the field's path, such as spec.template.spec.containers[name="receiver"].image.
func (f Field) String() string {
	text := f.Path.String()
	if len(text) > 0 && text[0] == '.' {
		return text[1:]
	}
	return text
}

// None reports whether there is nothing to restore.
func (d *Drift) None() bool { return len(d.Changed) == 0 && len(d.Added) == 0 }

// NeedsPatch reports whether server-side apply alone does not restore the object, since it merges maps and lists.
func (d *Drift) NeedsPatch() bool { return len(d.Added) > 0 || len(d.exact) > 0 }

// manager is one entry of the managed fields.
type manager struct {
	name   string
	fields *fieldpath.Set
}

// finder compares one object.
type finder struct {
	desired, live map[string]any
	ours          *fieldpath.Set // fields that the owner wrote, by whichever operation
	others        []manager
	found         Drift
}

// Find compares an object with what its owner applies to it, both as unstructured content. What others added to an
// object's metadata, to its status, or where leave reports true, is theirs.
func Find(desired, live map[string]any, managed []metav1.ManagedFieldsEntry, owner string, leave func(path string) bool) (*Drift, error) {
	f := &finder{desired: desired, live: live, ours: fieldpath.NewSet()}
	var updates []manager // of the owner, by patch or update: server-side apply does not remove them
	for i := range managed {
		entry := &managed[i]
		if entry.FieldsV1 == nil || entry.Subresource == "status" {
			continue
		}
		fields := &fieldpath.Set{}
		if err := fields.FromJSON(entry.FieldsV1.GetRawReader()); err != nil {
			return nil, fmt.Errorf("read the managed fields of %s: %w", entry.Manager, err)
		}
		switch {
		case entry.Manager != owner:
			f.others = append(f.others, manager{entry.Manager, fields})
		case entry.Operation == metav1.ManagedFieldsOperationUpdate:
			updates = append(updates, manager{owner, fields})
			fallthrough
		default:
			f.ours = f.ours.Union(fields)
		}
	}
	for _, key := range sortedKeys(desired) {
		if key != "apiVersion" && key != "kind" && key != "status" {
			f.compare(fieldpath.MakePathOrDie(key), desired[key], live[key])
		}
	}
	for _, m := range append(updates, f.others...) {
		f.additions(m, leave)
	}
	return &f.found, nil
}

// compare notes where what is there is not what is wanted.
func (f *finder) compare(path fieldpath.Path, want, have any) {
	switch want := want.(type) {
	case nil:
	case map[string]any:
		found, ok := have.(map[string]any)
		if !ok && len(want) > 0 && have != nil {
			f.differs(path)
			return
		}
		for _, key := range sortedKeys(want) {
			f.compare(field(path, key), want[key], found[key])
		}
	case []any:
		found, _ := have.([]any)
		names := f.keys(path)
		if names == nil {
			if !covered(want, found) {
				f.differs(path)
			}
			return
		}
		for _, item := range want {
			wanted, _ := item.(map[string]any)
			i := find(found, wanted, names)
			if i < 0 {
				f.differs(append(path.Copy(), keyed(wanted, names)))
				continue
			}
			f.compare(append(path.Copy(), keyed(found[i].(map[string]any), names)), wanted, found[i])
		}
	default:
		if !reflect.DeepEqual(want, have) {
			f.differs(path)
		}
	}
}

// differs notes a field that is not as wanted, by whose it is.
func (f *finder) differs(path fieldpath.Path) {
	if holds(f.ours, path) {
		f.found.Accepted = append(f.found.Accepted, Field{Path: path})
		return
	}
	name := ""
	for _, m := range f.others {
		if holds(m.fields, path) {
			name = m.name
		}
	}
	f.found.Changed = append(f.found.Changed, Field{Path: path, Manager: name})
}

// additions notes what one manager wrote that is not wanted.
func (f *finder) additions(m manager, leave func(path string) bool) {
	m.fields.Leaves().Iterate(func(p fieldpath.Path) {
		top := p[0].FieldName
		if top == nil || *top == "metadata" || *top == "status" {
			return
		}
		path := p.Copy()
		have, there := resolve(f.live, path)
		if !there || leave != nil && leave(Field{Path: path}.String()) {
			return
		}
		want, wanted := resolve(f.desired, path)
		switch {
		case !wanted:
			f.add(f.topmost(m, path), m.name)
		case isMap(want) && !same(want, have) && !holds(f.ours, path):
			f.found.exact = append(f.found.exact, path)
			f.found.Changed = slices.DeleteFunc(f.found.Changed, func(c Field) bool { // a part of it
				return len(c.Path) > len(path) && c.Path[:len(path)].Equals(path)
			})
			f.found.Changed = append(f.found.Changed, Field{Path: path, Manager: m.name})
		}
	})
}

// topmost is the whole of what a manager added, of which a path is a part.
func (f *finder) topmost(m manager, path fieldpath.Path) fieldpath.Path {
	for i := 1; i < len(path); i++ {
		if _, wanted := resolve(f.desired, path[:i]); !wanted && m.fields.Has(path[:i]) {
			return path[:i]
		}
	}
	return path
}

func (f *finder) add(path fieldpath.Path, name string) {
	if !slices.ContainsFunc(f.found.Added, func(known Field) bool { return known.Path.Equals(path) }) {
		f.found.Added = append(f.found.Added, Field{Path: path, Manager: name})
	}
}

// keys are the names of the fields by which items of a list are told apart; nil where it is replaced as a whole.
func (f *finder) keys(path fieldpath.Path) (names []string) {
	for _, set := range append([]manager{{fields: f.ours}}, f.others...) {
		below(set.fields, path).Iterate(func(p fieldpath.Path) {
			if names == nil && p[0].Key != nil {
				for _, key := range *p[0].Key {
					names = append(names, key.Name)
				}
			}
		})
	}
	return names
}

// Fix returns an object as it should be: without what was added, with what is desired. Neither argument is changed.
func (d *Drift) Fix(desired, live map[string]any, managed []metav1.ManagedFieldsEntry, owner string) (map[string]any, error) {
	fixed := deepCopy(live)
	for _, added := range d.Added {
		remove(fixed, added.Path)
	}
	for _, path := range d.exact {
		remove(fixed, path)
	}
	f := &finder{ours: fieldpath.NewSet()}
	for i := range managed { // which lists have keys
		if managed[i].FieldsV1 == nil {
			continue
		}
		fields := &fieldpath.Set{}
		if err := fields.FromJSON(managed[i].FieldsV1.GetRawReader()); err != nil {
			return nil, fmt.Errorf("read the managed fields of %s: %w", managed[i].Manager, err)
		}
		f.ours = f.ours.Union(fields)
	}
	for _, key := range sortedKeys(desired) {
		if key != "apiVersion" && key != "kind" && key != "status" {
			fixed[key] = f.overlay(fieldpath.MakePathOrDie(key), desired[key], fixed[key])
		}
	}
	return fixed, nil
}

// overlay puts what is wanted over what is there.
func (f *finder) overlay(path fieldpath.Path, want, have any) any {
	switch want := want.(type) {
	case nil:
		return have
	case map[string]any:
		found, ok := have.(map[string]any)
		if !ok {
			found = map[string]any{}
		}
		for _, key := range sortedKeys(want) {
			if value := f.overlay(field(path, key), want[key], found[key]); value != nil {
				found[key] = value
			}
		}
		return found
	case []any:
		found, _ := have.([]any)
		names := f.keys(path)
		if names == nil {
			if covered(want, found) {
				return have // with the API server's defaults
			}
			return want
		}
		var list []any // in the order that is wanted, and then what admission added
		for _, item := range want {
			wanted, _ := item.(map[string]any)
			if i := find(found, wanted, names); i >= 0 {
				item = f.overlay(append(path.Copy(), keyed(found[i].(map[string]any), names)), wanted, found[i])
				found = slices.Delete(slices.Clone(found), i, i+1)
			}
			list = append(list, item)
		}
		return append(list, found...)
	default:
		return want
	}
}
