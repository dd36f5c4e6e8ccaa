package expression

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// maxDepth is how deep what a template makes may nest.
const maxDepth = 64

// Template is a compiled expression that makes a value of an event.
type Template struct {
	program cel.Program
}

// CompileTemplate compiles a template. The error says where it is wrong.
func CompileTemplate(text string) (*Template, error) {
	program, _, err := compile(text)
	if err != nil {
		return nil, err
	}
	return &Template{program}, nil
}

// Make makes the value: what encoding/json can write. An error says that it could not be made; it does
// not show the event's values.
func (t *Template) Make(e *event.Event) (any, error) {
	result, _, err := t.program.Eval(&root{Event: e})
	if err != nil {
		return nil, fmt.Errorf("evaluate the template: %w", err)
	}
	return native(result, 0)
}

// native makes of CEL's values what encoding/json can write.
func native(value ref.Val, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("expected a value nested at most %d deep", maxDepth)
	}
	switch value := value.(type) {
	case types.Null:
		return nil, nil
	case types.Bool, types.Int, types.Uint, types.Double, types.String:
		return value.Value(), nil
	case types.Timestamp:
		return value.Time.UTC().Format(time.RFC3339Nano), nil
	case types.Duration:
		return value.Seconds(), nil
	case *object:
		text, err := json.Marshal(value.json())
		return json.RawMessage(text), err
	case traits.Mapper:
		return nativeMap(value, depth)
	case traits.Lister:
		list := []any{}
		for it := value.Iterator(); it.HasNext() == types.True; {
			item, err := native(it.Next(), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		return list, nil
	}
	return nil, fmt.Errorf("expected a text, number, truth value, list, or object, got one of type %s", value.Type().TypeName())
}

func nativeMap(value traits.Mapper, depth int) (any, error) {
	object := map[string]any{}
	for it := value.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := key.(types.String)
		if !ok {
			return nil, errors.New("expected texts as the keys of an object")
		}
		item, err := native(value.Get(key), depth+1)
		if err != nil {
			return nil, err
		}
		object[string(name)] = item
	}
	return object, nil
}

// json is the Go value as encoding/json knows it.
func (v *object) json() any {
	if r, ok := v.value.(*root); ok {
		return r.Event
	}
	return v.value
}
