// Package manifests brings Kubernetes objects into the cluster and keeps them
// as they were written: our own system stacks, rendered from static/, and the
// stacks users put into <data-dir>/manifests.
//
// A Stack is a named set of objects. Render makes our own, files become stacks
// by being read, an Applier makes the cluster agree with one stack, and a
// Deployer watches for changes and calls the Applier until it succeeds.
package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// StackLabel is the label every applied object carries; its value is the name
// of the stack. It is how a later run knows what it may prune.
const StackLabel = "k0s.k0sproject.io/stack"

// Stack is a named set of objects which are applied and pruned together.
// The name must be a valid label value. A stack without objects is one whose
// objects are to be removed.
type Stack struct {
	Name    string
	Objects []Object
}

// Object is one object of a stack.
type Object struct {
	*unstructured.Unstructured
	// Source says where the object was written, as file:line, for error
	// messages. May be empty.
	Source string
}

// Parse reads the objects in data, which is a stream of YAML documents, or of
// JSON values if source ends in .json. List kinds are taken apart. Documents
// that do not look like Kubernetes objects at all are left out and reported
// as warnings; everything else that cannot be read is an error naming the
// line. source names data in messages and in Object.Source.
func Parse(source string, data []byte) (objects []Object, warnings []string, err error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	documents := yamlDocuments
	if strings.HasSuffix(source, ".json") {
		documents = jsonDocuments
	}
	docs, err := documents(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", source, err)
	}
	for _, doc := range docs {
		at := fmt.Sprintf("%s:%d", source, doc.line)
		var content any
		if err := utiljson.Unmarshal(doc.json, &content); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", at, err)
		}
		found, warning, err := objectsIn(content, at)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", at, err)
		}
		if warning != "" {
			warnings = append(warnings, at+": "+warning)
		}
		objects = append(objects, found...)
	}
	return objects, warnings, nil
}

// objectsIn returns the objects content stands for: none, one, or the items
// of a list.
func objectsIn(content any, at string) ([]Object, string, error) {
	if content == nil {
		return nil, "", nil
	}
	fields, ok := content.(map[string]any)
	if !ok {
		return nil, "", errors.New("this is not a Kubernetes object: expected fields such as apiVersion, kind and metadata")
	}
	apiVersion, _ := fields["apiVersion"].(string)
	kind, _ := fields["kind"].(string)
	switch {
	case apiVersion == "" && kind == "":
		return nil, "skipped: neither apiVersion nor kind, so this is no Kubernetes object", nil
	case apiVersion == "":
		return nil, "", fmt.Errorf("%s has no apiVersion: add it, for example apiVersion: apps/v1", kind)
	case kind == "":
		return nil, "", fmt.Errorf("object of apiVersion %s has no kind: add it", apiVersion)
	}
	items, isList := fields["items"].([]any)
	if !isList || !strings.HasSuffix(kind, "List") {
		return []Object{{Unstructured: &unstructured.Unstructured{Object: fields}, Source: at}}, "", nil
	}
	var objects []Object
	for i, item := range items {
		found, warning, err := objectsIn(item, at)
		if err == nil && warning != "" {
			err = errors.New("neither apiVersion nor kind")
		}
		if err != nil {
			return nil, "", fmt.Errorf("item %d of %s: %w", i, kind, err)
		}
		objects = append(objects, found...)
	}
	return objects, "", nil
}

// document is one document of a file, as JSON, and the line it begins on.
type document struct {
	line int
	json []byte
}

// yamlDocuments splits a YAML stream. The splitting is done here because the
// YAML library reads one document at a time and counts lines from its start.
func yamlDocuments(data []byte) ([]document, error) {
	var docs []document
	var chunk bytes.Buffer
	first, line := 0, 0

	flush := func() error {
		if first > 0 {
			text := chunk.Bytes()
			doc, err := yaml.YAMLToJSONStrict(text)
			if err != nil {
				return yamlError(err)
			}
			docs = append(docs, document{first, doc})
		}
		// Blank lines in place of what was read keep line numbers true.
		chunk.Reset()
		chunk.WriteString(strings.Repeat("\n", line))
		first = 0
		return nil
	}

	for text := range bytes.Lines(data) {
		line++
		rest, separator := cutSeparator(text)
		if separator {
			line--
			if err := flush(); err != nil {
				return nil, err
			}
			line++
			text = rest
		}
		chunk.Write(text)
		if content := bytes.TrimSpace(text); first == 0 && len(content) > 0 && content[0] != '#' {
			first = line
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	return docs, nil
}

// cutSeparator reports whether line ends a document, and what of the line
// belongs to the next one.
func cutSeparator(line []byte) (rest []byte, ok bool) {
	for _, marker := range []string{"---", "..."} {
		rest, found := bytes.CutPrefix(line, []byte(marker))
		if found && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0]))) {
			return rest, true
		}
	}
	return nil, false
}

// yamlError puts the library's message into one line without its prefixes.
func yamlError(err error) error {
	text := err.Error()
	for _, noise := range []string{"error converting YAML to JSON: ", "yaml: ", "unmarshal errors:\n  "} {
		text = strings.TrimPrefix(text, noise)
	}
	// What its parser (not its scanner) finds, it reports one line too early.
	var line int
	if _, err := fmt.Sscanf(text, "line %d: did not find expected", &line); err == nil {
		text = strings.Replace(text, fmt.Sprintf("line %d:", line), fmt.Sprintf("line %d:", line+1), 1)
	}
	return fmt.Errorf("not valid YAML: %s", strings.ReplaceAll(text, "\n  ", "; "))
}

func jsonDocuments(data []byte) ([]document, error) {
	lineAt := func(offset int64) int {
		return 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n"))
	}
	var docs []document
	decoder := json.NewDecoder(bytes.NewReader(data))
	for {
		start := decoder.InputOffset()
		for start < int64(len(data)) && bytes.ContainsRune([]byte(" \t\r\n"), rune(data[start])) {
			start++
		}
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			offset := int64(len(data))
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				offset = syntax.Offset
			}
			return nil, fmt.Errorf("not valid JSON: line %d: %w", lineAt(offset), err)
		}
		docs = append(docs, document{lineAt(start), raw})
	}
}
