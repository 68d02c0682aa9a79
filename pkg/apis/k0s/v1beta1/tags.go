package v1beta1

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateTags enforces what the fields' tags say.
func (c *ClusterConfig) validateTags() field.ErrorList {
	var errs field.ErrorList
	c.visit(func(path string, f structField, value, standard reflect.Value) {
		errs = append(errs, checkTags(field.NewPath(path), f.tag, value, standard)...)
	})
	return errs
}

// visit calls what for every field below spec, with its value and its default.
func (c *ClusterConfig) visit(what func(path string, f structField, value, standard reflect.Value)) {
	visitSection("spec", reflect.ValueOf(c.Spec), reflect.ValueOf(Default().Spec), what)
}

func visitSection(path string, section, standard reflect.Value, what func(path string, f structField, value, standard reflect.Value)) {
	for _, f := range structFields(section.Type()) {
		path, value, standard := path+"."+f.name, section.FieldByIndex(f.index), standard.FieldByIndex(f.index)
		if isSection(f.typ) {
			if f.typ.Kind() == reflect.Pointer {
				if value.IsNil() {
					continue
				}
				// A section that is not there by default has no defaults of its own.
				value, standard = value.Elem(), reflect.Zero(f.typ.Elem())
			}
			visitSection(path, value, standard, what)
			continue
		}
		what(path, f, value, standard)
		if item, ok := listOfSections(f.typ); ok {
			for i := range value.Len() {
				visitSection(fmt.Sprintf("%s[%d]", path, i), value.Index(i), reflect.Zero(item), what)
			}
		}
	}
}

func checkTags(path *field.Path, tag reflect.StructTag, value, standard reflect.Value) field.ErrorList {
	value, standard = reflect.Indirect(value), reflect.Indirect(standard)
	if !value.IsValid() {
		return nil // not set
	}
	if enum, ok := tag.Lookup("enum"); ok {
		if errs := checkEnum(path, strings.Split(enum, ","), strings.Split(tag.Get("known"), ","), value); len(errs) > 0 {
			return errs
		}
	}
	if errs := checkRange(path, tag, value); len(errs) > 0 {
		return errs
	}
	if isDefault(value, standard) {
		return nil
	}
	if harmless, ok := tag.Lookup("later"); ok && !slices.Contains(strings.Split(harmless, ","), asText(value)) {
		return field.ErrorList{field.Forbidden(path, notYet)}
	}
	if why, ok := tag.Lookup("never"); ok && asText(value) != tag.Get("default") {
		return field.ErrorList{field.Forbidden(path, "not supported: "+why)}
	}
	return nil
}

// isDefault tells whether a value asks for nothing.
func isDefault(value, standard reflect.Value) bool {
	return value.IsZero() || (value.Kind() == reflect.Slice || value.Kind() == reflect.Map) && value.Len() == 0 ||
		standard.IsValid() && reflect.DeepEqual(value.Interface(), standard.Interface())
}

func checkEnum(path *field.Path, enum, known []string, value reflect.Value) field.ErrorList {
	if value.Kind() == reflect.Slice {
		var errs field.ErrorList
		for i := range value.Len() {
			errs = append(errs, checkEnum(path.Index(i), enum, known, value.Index(i))...)
		}
		return errs
	}
	got := value.String()
	switch {
	case slices.Contains(enum, got), got != "" && slices.Contains(known, got):
		return nil
	case got == "":
		return field.ErrorList{field.Required(path, "must be "+choice(enum))}
	}
	return field.ErrorList{field.Invalid(path, got, "must be "+choice(enum))}
}

// choice puts values into words: a, b or c.
func choice(values []string) string {
	var words []string
	for _, v := range values {
		if v != "" {
			words = append(words, v)
		}
	}
	if len(words) < len(values) {
		words = append(words, "empty")
	}
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func checkRange(path *field.Path, tag reflect.StructTag, value reflect.Value) field.ErrorList {
	smallest, hasMin := tag.Lookup("min")
	largest, hasMax := tag.Lookup("max")
	if !hasMin && !hasMax {
		return nil
	}
	var number int64
	if value.CanUint() {
		number = int64(value.Uint()) //nolint:gosec // the types are uint32 and smaller
	} else {
		number = value.Int()
	}
	low, _ := strconv.ParseInt(smallest, 10, 64)
	high, _ := strconv.ParseInt(largest, 10, 64)
	if (!hasMin || number >= low) && (!hasMax || number <= high) {
		return nil
	}
	what := "must be"
	if low == 1 && high == 65535 {
		what = "must be a port"
	}
	switch {
	case !hasMax:
		what += " at least " + smallest
	case !hasMin:
		what += " at most " + largest
	default:
		what += " from " + smallest + " to " + largest
	}
	return field.ErrorList{field.Invalid(path, number, what)}
}

func asText(value reflect.Value) string {
	if d, ok := value.Interface().(metav1.Duration); ok {
		return d.Duration.String()
	}
	return fmt.Sprint(value.Interface())
}

// isSection tells whether a type is a part of the file with fields of its own.
func isSection(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct && !hasOwnJSON(t)
}

// listOfSections tells the type of a list's items if they are sections.
func listOfSections(t reflect.Type) (reflect.Type, bool) {
	if t.Kind() != reflect.Slice || !isSection(t.Elem()) {
		return nil, false
	}
	return t.Elem(), true
}
