package check

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/receiver/config"
)

// document is one YAML document of a file.
type document struct {
	file string
	line int // of its first line in the file, from 1
	text []byte
	root *yaml.Node // nil where it is not YAML
}

// maxDocuments bounds the documents of one file.
const maxDocuments = 10_000

var separator = regexp.MustCompile(`(?m)^---(?:[ \t].*)?\r?\n?`)

// split returns the documents of a file that are not empty.
func split(file string, text []byte) ([]*document, error) {
	var all []*document
	begin, line := 0, 1
	add := func(end int) {
		part := text[begin:end]
		if !isBlank(part) {
			all = append(all, &document{file: file, line: line, text: part})
		}
	}
	for _, at := range separator.FindAllIndex(text, -1) {
		add(at[0])
		line += strings.Count(string(text[begin:at[1]]), "\n")
		begin = at[1]
		if len(all) > maxDocuments {
			return nil, errors.New("expected at most " + strconv.Itoa(maxDocuments) + " documents")
		}
	}
	add(len(text))
	return all, nil
}

// isBlank reports whether a document holds nothing but blank lines and comments.
func isBlank(text []byte) bool {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") && line != "..." {
			return false
		}
	}
	return true
}

// parse reads the document's nodes, for places. The error names a line of the file.
func (d *document) parse() *config.SyntaxError {
	var node yaml.Node
	err := yaml.Unmarshal(d.text, &node)
	if err == nil {
		if len(node.Content) > 0 {
			d.root = node.Content[0]
		}
		return nil
	}
	return d.syntax(err)
}

// syntax puts an error of the YAML library into words, with the line in the file.
func (d *document) syntax(err error) *config.SyntaxError {
	wrong := &config.SyntaxError{Message: err.Error()}
	errors.As(config.ExplainYAML(err), &wrong)
	return &config.SyntaxError{Line: max(wrong.Line, 1) + d.line - 1, Message: wrong.Message}
}

// place returns where a field is written: its key, or of an item of a list the item; else the innermost that is
// there of what holds it.
func (d *document) place(field string) (line, column int) {
	node := d.root
	if node == nil {
		return d.line, 1
	}
	line, column = node.Line, node.Column
	for _, step := range validation.Steps(field) {
		at, next := child(node, step)
		if next == nil {
			break
		}
		line, column, node = at.Line, at.Column, next
	}
	return line + d.line - 1, column
}

// child returns the key (or the item itself) and value of a step into a node; nil where there is none.
func child(node *yaml.Node, step string) (at, value *yaml.Node) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		for i, item := range node.Content {
			if strconv.Itoa(i) == step {
				return item, item
			}
			if _, name := child(item, "name"); name != nil && name.Value == step {
				return item, item
			}
		}
	}
	return nil, nil
}
