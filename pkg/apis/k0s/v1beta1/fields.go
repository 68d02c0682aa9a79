package v1beta1

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Field is what is known about one field that can be set in k0s.yaml.
type Field struct {
	// Path such as spec.api.port.
	Path string
	// Type is its Go type.
	Type reflect.Type
	// Default is its value in [Default].
	Default any
	// Scope is node or cluster.
	Scope string
	// Change is what a change takes: see the package comment.
	Change string
}

// Fields returns every supported field below spec, in the order of the types.
func Fields() []Field {
	return appendFields(nil, "spec", reflect.ValueOf(Default().Spec))
}

func appendFields(fields []Field, path string, section reflect.Value) []Field {
	for _, f := range structFields(section.Type()) {
		value := section.FieldByIndex(f.index)
		path := path + "." + f.name
		if f.typ.Kind() == reflect.Struct && !hasOwnJSON(f.typ) {
			fields = appendFields(fields, path, value)
			continue
		}
		fields = append(fields, Field{
			Path:    path,
			Type:    f.typ,
			Default: value.Interface(),
			Scope:   f.tag.Get("scope"),
			Change:  f.tag.Get("change"),
		})
	}
	return fields
}

// structField is a struct's field as JSON sees it.
type structField struct {
	name  string
	index []int
	typ   reflect.Type
	tag   reflect.StructTag
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
			fields = append(fields, structField{name, []int{i}, f.Type, f.Tag})
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
	best, bestDistance := "", (len(name)+2)/3+1
	for _, v := range valid {
		if len(name) > 64 {
			break // no misspelling, and comparing takes its length in memory
		}
		if d := distance(strings.ToLower(name), strings.ToLower(v)); d < bestDistance && d < len(v) {
			best, bestDistance = v, d
		}
	}
	if best != "" {
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
