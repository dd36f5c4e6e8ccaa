package drift

import (
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

func deepCopy(object map[string]any) map[string]any { return runtime.DeepCopyJSON(object) }

// field is the path of a map's key.
func field(path fieldpath.Path, name string) fieldpath.Path {
	return append(path.Copy(), fieldpath.PathElement{FieldName: &name})
}

// keyed is how managed fields name an item of a list.
func keyed(item map[string]any, names []string) fieldpath.PathElement {
	var key value.FieldList
	for _, name := range names {
		if v, ok := item[name]; ok {
			key = append(key, value.Field{Name: name, Value: value.NewValueInterface(v)})
		}
	}
	key.Sort()
	return fieldpath.PathElement{Key: &key}
}

// find is the place of an item in a list by its keys, as far as it has them; -1 where it is not there.
func find(list []any, item map[string]any, names []string) int {
	return slices.IndexFunc(list, func(other any) bool {
		have, ok := other.(map[string]any)
		return ok && !slices.ContainsFunc(names, func(name string) bool {
			want, wanted := item[name]
			return wanted && !reflect.DeepEqual(want, have[name])
		})
	})
}

// step goes one element down, and returns the place of a list's item.
func step(node any, element fieldpath.PathElement) (child any, index int, ok bool) {
	switch {
	case element.FieldName != nil:
		m, _ := node.(map[string]any)
		child, ok = m[*element.FieldName]
		return child, -1, ok && child != nil
	case element.Key != nil:
		list, _ := node.([]any)
		index = slices.IndexFunc(list, func(other any) bool {
			item, ok := other.(map[string]any)
			return ok && !slices.ContainsFunc(*element.Key, func(key value.Field) bool {
				have, there := item[key.Name] // the API server's default where it was not given
				return there && !value.Equals(value.NewValueInterface(have), key.Value)
			})
		})
	case element.Value != nil:
		list, _ := node.([]any)
		index = slices.IndexFunc(list, func(other any) bool { return value.Equals(value.NewValueInterface(other), *element.Value) })
	case element.Index != nil:
		index = *element.Index
	}
	list, _ := node.([]any)
	if index < 0 || index >= len(list) {
		return nil, -1, false
	}
	return list[index], index, true
}

// resolve is the value at a path.
func resolve(object map[string]any, path fieldpath.Path) (found any, ok bool) {
	found = object
	for _, element := range path {
		if found, _, ok = step(found, element); !ok {
			return nil, false
		}
	}
	return found, true
}

// remove takes out what is at a path.
func remove(object map[string]any, path fieldpath.Path) {
	parent, ok := resolve(object, path[:len(path)-1])
	if !ok {
		return
	}
	last := path[len(path)-1]
	if m, isMap := parent.(map[string]any); isMap && last.FieldName != nil {
		delete(m, *last.FieldName)
		return
	}
	_, index, ok := step(parent, last)
	if list, isList := parent.([]any); ok && isList && len(path) > 1 { // the shorter list takes its place
		replace(object, path[:len(path)-1], slices.Delete(slices.Clone(list), index, index+1))
	}
}

// replace puts another value at a path that is there.
func replace(object map[string]any, path fieldpath.Path, value any) {
	parent, ok := resolve(object, path[:len(path)-1])
	if !ok {
		return
	}
	last := path[len(path)-1]
	switch parent := parent.(type) {
	case map[string]any:
		if last.FieldName != nil {
			parent[*last.FieldName] = value
		}
	case []any:
		if _, index, ok := step(parent, last); ok {
			parent[index] = value
		}
	}
}

// below is what a set has under a path.
func below(set *fieldpath.Set, path fieldpath.Path) *fieldpath.Set {
	for _, element := range path {
		set = set.WithPrefix(element)
	}
	return set
}

// holds reports whether a set has a field, something in it, or as a whole what it is a part of.
func holds(set *fieldpath.Set, path fieldpath.Path) bool {
	if set.Has(path) || !below(set, path).Empty() {
		return true
	}
	for i := len(path) - 1; i > 0; i-- {
		if set.Has(path[:i]) {
			return below(set, path[:i]).Empty()
		}
	}
	return false
}

func isMap(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// same reports whether a map that has one owner is as wanted.
func same(want, have any) bool {
	wanted, _ := want.(map[string]any)
	found, _ := have.(map[string]any)
	return len(wanted) == len(found) && covered(want, have)
}

// covered reports whether a value has all that is wanted, and in each wanted list nothing else.
func covered(want, have any) bool {
	switch want := want.(type) {
	case nil:
		return true
	case map[string]any:
		found, _ := have.(map[string]any)
		for key, value := range want {
			if !covered(value, found[key]) {
				return false
			}
		}
		return true
	case []any:
		found, _ := have.([]any)
		return slices.EqualFunc(want, found, covered)
	default:
		return reflect.DeepEqual(want, have)
	}
}
