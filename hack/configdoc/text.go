package main

import (
	"fmt"
	"go/doc"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// explain makes a Go comment an explanation for users: "Port is the port of x"
// becomes "The port of x", "CAFile makes y" becomes "Makes y". Where the name
// has no verb it becomes the one in k0s.yaml.
func explain(comment, goName, key string) string {
	rest, ok := strings.CutPrefix(comment, goName+" ")
	if !ok {
		return comment
	}
	verb, object, _ := strings.Cut(rest, " ")
	switch verb {
	case "is", "are":
		return capital(object)
	case "of", "for", "from", "by", "at", "in", "that":
		if strings.EqualFold(goName, key) {
			key = goName
		}
		return key + " " + rest
	}
	return capital(rest)
}

// capital begins a sentence, unless with a name.
func capital(s string) string {
	first, _, _ := strings.Cut(s, " ")
	if first == "" || strings.ContainsAny(first, "/:.") || slices.Contains([]string{"iptables", "nftables", "etcd", "kine", "kuberouter"}, first) {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func firstSentence(text string) (first, rest string) {
	first = new(doc.Package).Synopsis(text)
	return first, strings.TrimSpace(strings.TrimPrefix(text, first))
}

// wrap breaks text into lines of at most width runes.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// plainValue is a value as YAML and JSON have it.
func plainValue(value any) any {
	v := reflect.ValueOf(value)
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if !v.IsValid() {
		return nil
	}
	switch d := v.Interface().(type) {
	case metav1.Duration:
		return shortDuration(d.Duration)
	case v1beta1.HelmTimeout:
		return shortDuration(d.Duration.Duration)
	}
	switch {
	case v.Kind() == reflect.String:
		return v.String()
	case v.Kind() == reflect.Bool:
		return v.Bool()
	case v.CanInt():
		return v.Int()
	case v.CanUint():
		return v.Uint()
	}
	return v.Interface()
}

// shortDuration is 8760h for 8760h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// inline is a value as YAML on one line.
func inline(value any) string {
	data, err := yaml.Marshal(plainValue(value))
	if err != nil {
		panic(err) // defaults are plain values
	}
	return strings.TrimSpace(string(data))
}

// example is that of the tag; in list items and for sections it is put together
// from those of the fields.
func (e *entry) example() string {
	if example, ok := e.Tag.Lookup("example"); ok || len(e.children) == 0 {
		return example
	}
	var parts []string
	for _, child := range e.children {
		parts = append(parts, child.key+": "+child.example())
	}
	if e.isList() {
		return "[{" + strings.Join(parts, ", ") + "}]"
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// exampleValue is the example, decoded.
func (e *entry) exampleValue() (any, error) {
	var value any
	if err := yaml.Unmarshal([]byte(e.example()), &value); err != nil {
		return nil, fmt.Errorf("the example of %s: %w", e.Path, err)
	}
	return value, nil
}

// kind is a field's type in words.
func (e *entry) kind() string {
	t := e.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch reflect.Zero(t).Interface().(type) {
	case metav1.Duration, v1beta1.HelmTimeout:
		return "duration"
	}
	if enum := e.enum(); len(enum) > 0 {
		what := "`" + strings.Join(enum, "`, `") + "`"
		if e.isList() {
			return "list of " + what
		}
		return what
	}
	low, high := e.Tag.Get("min"), e.Tag.Get("max")
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		if e.Section {
			return "list of mappings"
		}
		return "list of strings"
	case reflect.Map:
		return "map of strings"
	case reflect.Struct:
		return "mapping"
	}
	switch {
	case low == "1" && high == "65535":
		return "port"
	case low != "" && high != "":
		return "number from " + low + " to " + high
	case low != "":
		return "number from " + low
	case high != "":
		return "number to " + high
	}
	return "number"
}

// enum are the values that are allowed beside the empty one.
func (e *entry) enum() []string {
	var values []string
	for value := range strings.SplitSeq(e.Tag.Get("enum"), ",") {
		if value != "" {
			values = append(values, value)
		}
	}
	return values
}

var (
	code = regexp.MustCompile("`[^`]*`")
	// Paths, names in camel case or with underscores, places in <>, a key with its value.
	codeLike = regexp.MustCompile(`\bspec(\.\w+)+|<[a-z-]+>[^\s,;]*|\b[a-z]+[a-z0-9]*(_[a-z]+)+\b|\b[a-z]+[0-9]*([A-Z]+[a-z0-9]*)+(: (true|false))?\b|\b0s\b`)
)

// markdown puts what looks like code between backticks, and makes the text fit
// for a table.
func markdown(text string) string {
	var b strings.Builder
	last := 0
	for _, span := range append(code.FindAllStringIndex(text, -1), []int{len(text), len(text)}) {
		b.WriteString(codeLike.ReplaceAllString(text[last:span[0]], "`$0`"))
		b.WriteString(text[span[0]:span[1]])
		last = span[1]
	}
	return strings.ReplaceAll(b.String(), "|", `\|`)
}
