package event_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/test/golden"
)

// docs is where the generated pages lie.
func docs(page string) string { return filepath.Join("..", "..", "docs", page) }

// TestSchema: docs/event.schema.json is what the types say.
func TestSchema(t *testing.T) {
	m := maker{comments: comments(t), types: types(t)}
	root := m.object(reflect.TypeFor[event.Event]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "The canonical event of pbxhook: the data of its CloudEvents"
	text, err := json.MarshalIndent(root, "", "  ")
	require.NoError(t, err)
	golden.File(t, docs("event.schema.json"), append(text, '\n'))
}

// TestFieldTable: the table of docs/fields.md is what the types say.
func TestFieldTable(t *testing.T) {
	m := maker{comments: comments(t), types: types(t)}
	var rows strings.Builder
	rows.WriteString("| field | type | what it is |\n| --- | --- | --- |\n")
	m.rows(&rows, "", reflect.TypeFor[event.Event]())
	golden.Section(t, docs("fields.md"), "fields", rows.String())
}

// maker makes documents of Go types and their comments.
type maker struct {
	comments map[string]string // Type.Field to its comment
	types    []any             // the canonical event types
}

// comments reads what the source says of each field. A field without a comment is a defect.
func comments(t *testing.T) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, parser.ParseComments)
	require.NoError(t, err)
	found := map[string]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if fields, ok := spec.Type.(*ast.StructType); ok {
			for _, field := range fields.Fields.List {
				for _, name := range field.Names {
					text := field.Comment.Text() + field.Doc.Text()
					require.NotEmpty(t, text, "say what %s.%s is", spec.Name, name)
					found[spec.Name.Name+"."+name.Name] = strings.TrimSpace(text)
				}
			}
		}
		return true
	})
	return found
}

// types reads the canonical event types from the source.
func types(t *testing.T) []any {
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	require.NoError(t, err)
	var found []any
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Type" {
			found = append(found, strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		}
		return true
	})
	require.NotEmpty(t, found)
	return found
}

// members calls do for each member of a type that is in its JSON.
func members(t reflect.Type, do func(name string, optional bool, field reflect.StructField)) {
	for field := range t.Fields() {
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "-" {
			do(name, option == "omitempty", field)
		}
	}
}

func (m maker) object(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	members(t, func(name string, optional bool, field reflect.StructField) {
		schema := m.schema(field.Type)
		schema["description"] = m.comments[t.Name()+"."+field.Name]
		properties[name] = schema
		if !optional {
			required = append(required, name)
		}
	})
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

func (m maker) schema(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[event.Type]():
		return map[string]any{"type": "string", "enum": m.types}
	case reflect.TypeFor[v1alpha1.Provider]():
		return map[string]any{"type": "string", "enum": []any{v1alpha1.Simotel, v1alpha1.VoIPstudio, v1alpha1.Acefone}}
	case reflect.TypeFor[v1alpha1.CallType]():
		return map[string]any{"type": "string", "enum": []any{"", v1alpha1.CallTypeInbound, v1alpha1.CallTypeOutbound, v1alpha1.CallTypeClickToCall, v1alpha1.CallTypeInternal}}
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[*time.Time]():
		return map[string]any{"type": []string{"string", "null"}, "format": "date-time"}
	case reflect.TypeFor[*int64]():
		return map[string]any{"type": []string{"integer", "null"}}
	case reflect.TypeFor[*bool]():
		return map[string]any{"type": []string{"boolean", "null"}}
	case reflect.TypeFor[json.RawMessage]():
		return map[string]any{"type": []string{"object", "array", "null"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return m.object(t.Elem())
	case reflect.Struct:
		return m.object(t)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": m.object(t.Elem())}
	case reflect.String:
		return map[string]any{"type": "string"}
	}
	panic(fmt.Sprintf("say how %s is in JSON", t))
}

func (m maker) rows(out *strings.Builder, prefix string, t reflect.Type) {
	members(t, func(name string, _ bool, field reflect.StructField) {
		kind, inner := field.Type, reflect.Type(nil)
		word := "text"
		switch {
		case kind == reflect.TypeFor[time.Time]():
			word = "time"
		case kind == reflect.TypeFor[*time.Time]():
			word = "time or null"
		case kind == reflect.TypeFor[*int64]():
			word = "number or null"
		case kind == reflect.TypeFor[*bool]():
			word = "truth value or null"
		case kind == reflect.TypeFor[json.RawMessage]():
			word = "JSON"
		case kind.Kind() == reflect.Pointer:
			word, inner = "object", kind.Elem()
		case kind.Kind() == reflect.Slice:
			word, inner = "list", kind.Elem()
			name += "[]"
		case kind.Kind() == reflect.Struct:
			word, inner = "object", kind
		}
		fmt.Fprintf(out, "| `%s%s` | %s | %s |\n", prefix, name, word, m.comments[t.Name()+"."+field.Name])
		if inner != nil && (inner != reflect.TypeFor[event.Party]() || prefix+name == "call.from") { // one party is like another
			m.rows(out, prefix+name+".", inner)
		}
	})
}
