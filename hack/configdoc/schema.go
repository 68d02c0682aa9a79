package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// schema is a JSON schema of draft 7, which editors understand best.
type schema struct {
	Schema               string             `json:"$schema,omitempty"`
	Title                string             `json:"title,omitempty"`
	Description          string             `json:"description,omitempty"`
	Type                 any                `json:"type,omitempty"`
	Enum                 []any              `json:"enum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	Minimum              *int64             `json:"minimum,omitempty"`
	Maximum              *int64             `json:"maximum,omitempty"`
	Default              any                `json:"default,omitempty"`
	Examples             []any              `json:"examples,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"`
}

// jsonSchema describes the whole file.
func jsonSchema(spec *entry) ([]byte, error) {
	section, err := schemaOf(spec)
	if err != nil {
		return nil, err
	}
	section.Description = "What the cluster shall be."
	file := schema{
		Schema:      "http://json-schema.org/draft-07/schema#",
		Title:       "k0s.yaml",
		Description: "The configuration of k0s: " + v1beta1.Kind + " of " + v1beta1.APIVersion + ".",
		Type:        "object",
		Properties: map[string]*schema{
			"apiVersion": {Type: "string", Enum: []any{v1beta1.APIVersion}},
			"kind":       {Type: "string", Enum: []any{v1beta1.Kind}},
			"metadata":   metadata(),
			"spec":       section,
		},
		AdditionalProperties: false,
	}
	text, err := json.MarshalIndent(file, "", "  ")
	return append(text, '\n'), err
}

// metadata allows what Kubernetes knows. None of it matters to k0s.
func metadata() *schema {
	properties := map[string]*schema{}
	meta := reflect.TypeFor[metav1.ObjectMeta]()
	for i := range meta.NumField() {
		if name, _, _ := strings.Cut(meta.Field(i).Tag.Get("json"), ","); name != "" {
			properties[name] = &schema{}
		}
	}
	properties["name"] = &schema{Type: orNull("string"), Default: v1beta1.Default().Name}
	properties["namespace"] = &schema{Type: orNull("string"), Default: v1beta1.Default().Namespace}
	return &schema{
		Description: "Names this object. k0s does not look at it.",
		Type:        orNull("object"), Properties: properties, AdditionalProperties: false,
	}
}

// orNull allows null, which stands for the default.
func orNull(types ...string) []string { return append(types, "null") }

func schemaOf(e *entry) (*schema, error) {
	s := &schema{Description: e.describe()}
	if e.Section {
		section := &schema{Type: orNull("object"), Properties: map[string]*schema{}, AdditionalProperties: false}
		for _, child := range e.children {
			property, err := schemaOf(child)
			if err != nil {
				return nil, err
			}
			section.Properties[child.key] = property
		}
		if e.isList() {
			section.Type = "object"
			s.Type, s.Items = orNull("array"), section
			return s, nil
		}
		section.Description = s.Description
		return section, nil
	}

	example, err := e.exampleValue()
	if err != nil {
		return nil, err
	}
	if example != nil {
		s.Examples = []any{example}
	}
	if e.isSet() || e.Type.Kind() == reflect.Bool {
		s.Default = plainValue(e.Default)
	}
	return s, e.addType(s)
}

// duration is what time.ParseDuration reads, but for the sign.
const duration = `^([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+$|^0$`

func (e *entry) addType(s *schema) error {
	t := e.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch reflect.Zero(t).Interface().(type) {
	case metav1.Duration:
		s.Type, s.Pattern = orNull("string"), duration
		return nil
	case v1beta1.HelmTimeout:
		s.Type, s.Pattern = orNull("string", "integer"), duration
		return nil
	case runtime.RawExtension:
		s.Type = orNull("object")
		return nil
	}
	switch {
	case t.Kind() == reflect.String:
		s.Type, s.Enum = orNull("string"), e.schemaEnum()
		if s.Enum != nil {
			s.Enum = append(s.Enum, nil)
		}
	case t.Kind() == reflect.Bool:
		s.Type = orNull("boolean")
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.String:
		s.Type, s.AdditionalProperties = orNull("object"), &schema{Type: []string{"string", "number", "boolean"}}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		s.Type, s.Items = orNull("array"), &schema{Type: "string", Enum: e.schemaEnum()}
	case reflect.Zero(t).CanInt() || reflect.Zero(t).CanUint():
		s.Type = orNull("integer")
		var err error
		if s.Minimum, err = number(e.Tag.Get("min")); err != nil {
			return fmt.Errorf("min of %s: %w", e.Path, err)
		}
		if s.Maximum, err = number(e.Tag.Get("max")); err != nil {
			return fmt.Errorf("max of %s: %w", e.Path, err)
		}
	default:
		return fmt.Errorf("%s: no JSON schema for the type %s", e.Path, t)
	}
	return nil
}

// schemaEnum are the values of the tag, the empty one included; nil if it has none.
func (e *entry) schemaEnum() []any {
	tag, ok := e.Tag.Lookup("enum")
	if !ok {
		return nil
	}
	var values []any
	for value := range strings.SplitSeq(tag, ",") {
		values = append(values, value)
	}
	return values
}

func number(s string) (*int64, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return &n, err
}

// describe is what an editor shows about a field.
func (e *entry) describe() string {
	text := strings.ReplaceAll(e.doc, "`", "")
	if scope := e.Scope(); scope != "" {
		text += fmt.Sprintf(" (scope: %s; change: %s)", scope, e.Change())
	}
	switch e.status() {
	case "later":
		return "Not supported yet. " + text
	case "never":
		return "Not supported: " + e.Tag.Get("never") + ". " + text
	case "gone":
		if why := e.Tag.Get("gone"); why != "" {
			return "Has no effect: " + why + ". " + text
		}
	}
	return text
}
