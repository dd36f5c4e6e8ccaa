package expression

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"github.com/pbxhook/pbxhook/receiver/event"
)

var eventType = reflect.TypeFor[event.Event]()

// typeName is how CEL knows a type of the canonical event.
func typeName(t reflect.Type) string { return "pbxhook." + t.Name() }

// root is an event that is being looked at. Its payload is read at most once.
type root struct {
	*event.Event
	payload any
}

// ResolveName implements cel.Activation: the event is all that expressions know.
func (r *root) ResolveName(name string) (any, bool) { return r, name == "event" }

// Parent implements cel.Activation.
func (r *root) Parent() cel.Activation { return nil }

func (r *root) readPayload() any {
	if r.payload == nil {
		r.payload = parse(r.Payload)
	}
	return r.payload
}

// parse reads JSON of the event; nothing is an empty object.
func parse(text json.RawMessage) any {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if len(text) == 0 || decoder.Decode(&value) != nil {
		return map[string]any{}
	}
	return numbers(value)
}

// numbers makes integers of whole numbers, so that they compare with CEL's literals.
func numbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		if n, err := value.Int64(); err == nil {
			return n
		}
		x, err := value.Float64()
		if err != nil {
			return value.String()
		}
		return x
	case []any:
		for i := range value {
			value[i] = numbers(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = numbers(value[key])
		}
	}
	return value
}

// objects tells CEL of the types of the canonical event, by their names in JSON.
type objects struct {
	*types.Registry
	fields map[string]map[string]*types.FieldType
	names  map[string][]string
}

func newObjects(registry *types.Registry) *objects {
	o := &objects{Registry: registry, fields: map[string]map[string]*types.FieldType{}, names: map[string][]string{}}
	o.add(eventType)
	return o
}

func (o *objects) add(t reflect.Type) {
	name := typeName(t)
	if o.fields[name] != nil {
		return
	}
	o.fields[name] = map[string]*types.FieldType{}
	for i := range t.NumField() {
		member, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if member == "-" {
			continue
		}
		o.names[name] = append(o.names[name], member)
		o.fields[name][member] = o.field(t.Field(i).Type, i)
	}
}

// field is a member: how CEL types it, whether the PBX gave it, and its value.
func (o *objects) field(t reflect.Type, index int) *types.FieldType {
	celType, convert := o.converter(t)
	return &types.FieldType{
		Type:  celType,
		IsSet: func(object any) bool { return !member(object, index).IsZero() },
		GetFrom: func(object any) (any, error) {
			if r, ok := object.(*root); ok && t == reflect.TypeFor[json.RawMessage]() {
				return r.readPayload(), nil
			}
			return convert(member(object, index)), nil
		},
	}
}

func member(object any, index int) reflect.Value {
	if r, ok := object.(*root); ok {
		object = r.Event
	}
	return reflect.ValueOf(object).Elem().Field(index)
}

// converter is how CEL types a Go type, and how a value of it becomes one of CEL's.
func (o *objects) converter(t reflect.Type) (*cel.Type, func(reflect.Value) any) {
	switch t {
	case reflect.TypeFor[time.Time]():
		return cel.TimestampType, reflect.Value.Interface
	case reflect.TypeFor[*time.Time]():
		return cel.TimestampType, orNull
	case reflect.TypeFor[*int64]():
		return cel.NullableType(cel.IntType), orNull
	case reflect.TypeFor[*bool]():
		return cel.NullableType(cel.BoolType), orNull
	case reflect.TypeFor[json.RawMessage]():
		return cel.DynType, func(v reflect.Value) any { return parse(v.Bytes()) }
	}
	switch t.Kind() {
	case reflect.String:
		return cel.StringType, func(v reflect.Value) any { return v.String() }
	case reflect.Struct:
		o.add(t)
		return cel.ObjectType(typeName(t)), func(v reflect.Value) any { return v.Addr().Interface() }
	case reflect.Pointer:
		o.add(t.Elem())
		return cel.ObjectType(typeName(t.Elem())), func(v reflect.Value) any {
			if v.IsNil() {
				return reflect.New(t.Elem()).Interface()
			}
			return v.Interface()
		}
	case reflect.Slice:
		element, convert := o.converter(t.Elem())
		return cel.ListType(element), func(v reflect.Value) any {
			list := make([]ref.Val, v.Len())
			for i := range list {
				list[i] = o.NativeToValue(convert(v.Index(i)))
			}
			return types.NewRefValList(o, list)
		}
	}
	panic(fmt.Sprintf("expression: a member of type %s", t)) // a mistake of ours, which every test shows
}

// orNull is what a pointer points to.
func orNull(v reflect.Value) any {
	if v.IsNil() {
		return types.NullValue
	}
	return v.Elem().Interface()
}

// FindStructType implements types.Provider.
func (o *objects) FindStructType(name string) (*types.Type, bool) {
	if o.fields[name] == nil {
		return o.Registry.FindStructType(name)
	}
	return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
}

// FindStructFieldNames implements types.Provider.
func (o *objects) FindStructFieldNames(name string) ([]string, bool) {
	if names, ok := o.names[name]; ok {
		return names, true
	}
	return o.Registry.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider.
func (o *objects) FindStructFieldType(name, member string) (*types.FieldType, bool) {
	if fields, ok := o.fields[name]; ok {
		field, ok := fields[member]
		return field, ok
	}
	return o.Registry.FindStructFieldType(name, member)
}

// NativeToValue implements types.Adapter.
func (o *objects) NativeToValue(value any) ref.Val {
	t := reflect.TypeOf(value)
	switch {
	case t == reflect.TypeFor[*root]():
		return &object{objects: o, value: value, kind: types.NewObjectType(typeName(eventType))}
	case t != nil && t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct && o.fields[typeName(t.Elem())] != nil:
		return &object{objects: o, value: value, kind: types.NewObjectType(typeName(t.Elem()))}
	}
	switch value := value.(type) {
	case map[string]any:
		return types.NewStringInterfaceMap(o, value)
	case []any:
		return types.NewDynamicList(o, value)
	}
	return o.Registry.NativeToValue(value)
}

// object is an object of the event as a value of CEL's.
type object struct {
	*objects
	value any
	kind  *types.Type
}

// ConvertToNative implements ref.Val.
func (v *object) ConvertToNative(t reflect.Type) (any, error) {
	if reflect.TypeOf(v.value) == t {
		return v.value, nil
	}
	return nil, fmt.Errorf("expected a type that %s can become, got %s", v.kind, t)
}

// ConvertToType implements ref.Val.
func (v *object) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return v.kind
	}
	return types.NewErr("expected a type that %s can become, got %s", v.kind, t.TypeName())
}

// Equal implements ref.Val.
func (v *object) Equal(other ref.Val) ref.Val {
	return types.Bool(reflect.DeepEqual(v.value, other.Value()))
}

// Type implements ref.Val.
func (v *object) Type() ref.Type { return v.kind }

// Value implements ref.Val.
func (v *object) Value() any { return v.value }

// IsSet implements traits.FieldTester.
func (v *object) IsSet(name ref.Val) ref.Val {
	field, ok := v.find(name)
	if !ok {
		return types.NewErr("%s has no such member", v.kind)
	}
	return types.Bool(field.IsSet(v.value))
}

// Get implements traits.Indexer.
func (v *object) Get(name ref.Val) ref.Val {
	field, ok := v.find(name)
	if !ok {
		return types.NewErr("%s has no such member", v.kind)
	}
	value, err := field.GetFrom(v.value)
	if err != nil {
		return types.WrapErr(err)
	}
	return v.NativeToValue(value)
}

func (v *object) find(name ref.Val) (*types.FieldType, bool) {
	text, _ := name.Value().(string)
	return v.FindStructFieldType(v.kind.TypeName(), text)
}
