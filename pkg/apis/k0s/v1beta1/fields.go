package v1beta1

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Field is what is known about one field of k0s.yaml.
type Field struct {
	// Path such as spec.api.port; that of a field of a list's items has
	// brackets: spec.workerProfiles[].name.
	Path string
	// Owner is the Go type that has the field.
	Owner reflect.Type
	// Name is the field's Go name there.
	Name string
	// Type is its Go type.
	Type reflect.Type
	// Section tells whether it has fields of its own, which follow. That is so
	// for mappings, and for lists of mappings.
	Section bool
	// Default is its value in [Default]; the zero value in list items and in
	// sections that are not there by default.
	Default any
	// Tag has the rest: see the package comment.
	Tag reflect.StructTag
}

// Scope is node or cluster; empty for a mapping.
func (f Field) Scope() string { return f.Tag.Get("scope") }

// Change is what a change takes: see the package comment.
func (f Field) Change() string { return f.Tag.Get("change") }

// Fields returns every field below spec, in the order of the types.
func Fields() []Field {
	return appendFields(nil, "spec", reflect.ValueOf(Default().Spec))
}

func appendFields(fields []Field, path string, section reflect.Value) []Field {
	for _, f := range structFields(section.Type()) {
		value := section.FieldByIndex(f.index)
		path := path + "." + f.name
		field := Field{Path: path, Owner: f.owner, Name: f.goName, Type: f.typ, Default: value.Interface(), Tag: f.tag}
		item, isList := listOfSections(f.typ)
		field.Section = isList || isSection(f.typ)
		fields = append(fields, field)
		switch {
		case isList:
			fields = appendFields(fields, path+"[]", reflect.Zero(item))
		case field.Section && f.typ.Kind() == reflect.Pointer && value.IsNil():
			fields = appendFields(fields, path, reflect.Zero(f.typ.Elem()))
		case field.Section:
			fields = appendFields(fields, path, reflect.Indirect(value))
		}
	}
	return fields
}

// structField is a struct's field as JSON sees it.
type structField struct {
	name   string
	index  []int
	typ    reflect.Type
	tag    reflect.StructTag
	owner  reflect.Type
	goName string
}

// structFields returns the fields of a struct with those of its inlined structs.
func structFields(t reflect.Type) []structField {
	var fields []structField
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name == "" && f.Anonymous:
			for _, inner := range structFields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				inner.tag = f.Tag + " " + inner.tag // the outer one wins
				fields = append(fields, inner)
			}
		default:
			fields = append(fields, structField{name, []int{i}, f.Type, f.Tag, t, f.Name})
		}
	}
	return fields
}

// hasOwnJSON tells whether values of t decode themselves, as durations do.
func hasOwnJSON(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// hintFor says what an unknown name was probably meant to be. Valid are the
// names possible in its place, all the paths of every field there is.
func hintFor(name string, valid, all []string) string {
	if best := closest(name, valid); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	for _, path := range all {
		if strings.EqualFold(path[strings.LastIndex(path, ".")+1:], name) {
			return "did you mean " + path + "?"
		}
	}
	slices.Sort(valid)
	return "valid here: " + strings.Join(valid, ", ")
}

// closest is the valid name that a misspelt one is nearest to; empty if none is
// near.
func closest(name string, valid []string) string {
	if len(name) > 64 {
		return "" // no misspelling, and comparing takes its length in memory
	}
	best, bestDistance := "", (len(name)+2)/3+1
	for _, v := range valid {
		if d := distance(strings.ToLower(name), strings.ToLower(v)); d < bestDistance && d < len(v) {
			best, bestDistance = v, d
		}
	}
	return best
}

// distance is how many insertions, deletions, substitutions and swaps of
// neighbours turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
