package v1beta1

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultPath is where k0s.yaml is looked for when no path is given.
const DefaultPath = "/etc/k0s/k0s.yaml"

// maxSize of a k0s.yaml in bytes; the API server refuses larger objects, too.
const maxSize = 1 << 20

// removed are fields that only old versions of upstream k0s have.
var removed = []string{"spec.api.tunneledNetworkingMode", "spec.network.calico.withWindowsNodes"}

// Check tells what else is wrong with a configuration, such as patches that
// apply to nothing. It may complete the configuration: see [OnHost].
type Check func(*ClusterConfig) []Problem

// Load reads and checks the configuration from a file, from stdin if path is
// "-". If path is empty, it reads [DefaultPath], and returns the defaults if
// there is no such file. Everything wrong with the content is reported as one
// *[Error], what programs (unless nil) and checks find included.
func Load(path string, stdin io.Reader, programs Programs, checks ...Check) (*ClusterConfig, error) {
	return load(path, DefaultPath, stdin, programs, checks...)
}

func load(path, defaultPath string, stdin io.Reader, programs Programs, checks ...Check) (*ClusterConfig, error) {
	name := path
	var data []byte
	var err error
	switch path {
	case "-":
		name = "stdin"
		data, err = readSome(stdin)
	case "":
		name = defaultPath
		data, err = readFile(defaultPath)
		if errors.Is(err, fs.ErrNotExist) {
			name, err = "", nil
		}
	default:
		data, err = readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the configuration: %w: name a file that exists, or - for the standard input", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration from %s: %w", name, err)
	}
	config, err := Parse(data, programs, checks...)
	var problems *Error
	if errors.As(err, &problems) {
		problems.File = name
	}
	return config, err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSome(f)
}

// readSome reads no more than it takes to see that it is too much.
func readSome(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, maxSize+1)) }

// Parse decodes a k0s.yaml over the defaults and validates the result: what the
// file leaves out or sets to null keeps its default. Unknown and duplicate keys,
// values of the wrong type, fields that are not supported yet and invalid values
// are all reported together in one *[Error], and no configuration is returned.
func Parse(data []byte, programs Programs, checks ...Check) (*ClusterConfig, error) {
	doc, problem := parseDocument(data)
	d := decoder{lines: map[string]int{}}
	if problem != nil {
		d.problems = append(d.problems, *problem)
		if doc == nil {
			return nil, &Error{Problems: d.problems}
		}
	}
	config := Default()
	for _, f := range Fields() {
		d.paths = append(d.paths, f.Path)
	}
	router := &config.Spec.Network.KubeRouter
	hairpin := router.Hairpin
	const leftOut = "\x00"
	router.Hairpin = leftOut // then the old hairpinMode counts
	if doc != nil {
		d.value("", doc, reflect.ValueOf(config).Elem())
	}
	if router.Hairpin == leftOut {
		if router.Hairpin = hairpin; router.HairpinMode != nil {
			router.Hairpin = router.oldHairpin()
		}
	}

	errs := config.Validate()
	if programs != nil {
		errs = append(errs, config.validateWith(programs)...)
	}
	found := problemsOf(errs, d.lines)
	for _, check := range checks {
		for _, p := range check(config) {
			p.Line = lineOf(p.Path, d.lines)
			if !slices.ContainsFunc(found, func(other Problem) bool { return other.String() == p.String() }) {
				found = append(found, p)
			}
		}
	}
	for _, p := range found {
		// What did not decode has its default, about which there is nothing to say.
		if !slices.ContainsFunc(d.undecoded, func(path string) bool { return isWithin(p.Path, path) }) {
			d.problems = append(d.problems, p)
		}
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, &Error{Problems: d.problems}
	}
	return config, nil
}

// parseDocument returns the first document that is not empty, nil if none is; and what is wrong with the file.
func parseDocument(data []byte) (*yaml.Node, *Problem) {
	if len(data) > maxSize {
		return nil, &Problem{Reason: fmt.Sprintf("larger than %d bytes: this is not a k0s.yaml", maxSize)}
	}
	var doc *yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return doc, nil
		}
		if err != nil {
			return doc, syntaxError(err, data)
		}
		if len(node.Content) == 0 || isNull(node.Content[0]) {
			continue
		}
		if doc != nil {
			return doc, &Problem{Line: node.Content[0].Line, Reason: "a second YAML document: k0s.yaml must have only one"}
		}
		doc = node.Content[0]
	}
}

// syntaxError is what the library says of text that is no YAML.
func syntaxError(err error, data []byte) *Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if _, err := fmt.Sscanf(text, "line %d: ", &line); err == nil {
		_, text, _ = strings.Cut(text, ": ")
		if strings.HasPrefix(text, "did not find expected ") {
			line++ // what the library's parser says counts from 0, what its scanner says from 1
		}
		line = min(line, bytes.Count(bytes.TrimSpace(data), []byte("\n"))+1)
	} else if first, _, _ := strings.Cut(text, " "); slices.Contains([]string{"found", "did", "could", "mapping"}, first) {
		line = 1 // it leaves out the first one
	}
	reason := "not valid YAML: "
	if line > 0 {
		reason = "not valid YAML from this line on: "
	}
	reason += text
	if bytes.Contains(data, []byte("\t")) && strings.Contains(reason, "cannot start any token") {
		reason += ": indent with spaces, not with tabs"
	}
	return &Problem{Line: line, Reason: reason}
}

// decoder sets Go values from YAML nodes and collects every problem on its way.
// The yaml libraries stop at the first one, or do not tell its path.
type decoder struct {
	problems  []Problem
	undecoded []string       // paths whose value is of the wrong type
	lines     map[string]int // of each path set
	paths     []string       // every path there is, for hints
}

func (d *decoder) problem(n *yaml.Node, path string, value any, reason string, args ...any) {
	d.problems = append(d.problems, Problem{Line: n.Line, Path: path, Value: value, Reason: fmt.Sprintf(reason, args...)})
}

// value sets v from n. Null leaves v alone.
func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if hasOwnJSON(v.Type()) {
		d.ownJSON(path, n, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		target := reflect.New(v.Type().Elem())
		before := len(d.problems)
		d.value(path, n, target.Elem())
		if len(d.problems) == before || target.Elem().Kind() == reflect.Struct {
			v.Set(target)
		}
	case reflect.Struct:
		d.section(path, n, v)
	case reflect.Map:
		d.stringMap(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	default:
		d.scalar(path, n, v)
	}
}

func (d *decoder) section(path string, n *yaml.Node, v reflect.Value) {
	fields := structFields(v.Type())
	var valid []string
	for _, f := range fields {
		valid = append(valid, f.name)
	}
	for _, e := range d.entries(path, n) {
		child := join(path, e.name)
		i := slices.IndexFunc(fields, func(f structField) bool { return f.name == e.name })
		switch {
		case e.again && i >= 0:
			d.look(child, e.value, reflect.New(v.FieldByIndex(fields[i].index).Type()).Elem())
		case e.again:
		case i >= 0:
			d.lines[child] = e.key.Line
			d.value(child, e.value, v.FieldByIndex(fields[i].index))
		case slices.Contains(removed, child):
			d.problem(e.key, child, nil, "was removed, from upstream k0s, too: leave it out")
		default:
			d.problem(e.key, child, nil, "unknown field: %s", hintFor(e.name, valid, d.paths))
		}
	}
}

type entry struct {
	name       string
	key, value *yaml.Node
	again      bool // the key has been there before
}

// entries returns the keys of a mapping with their values.
func (d *decoder) entries(path string, n *yaml.Node) []entry {
	if n.Kind != yaml.MappingNode {
		d.undecoded = append(d.undecoded, path)
		d.problem(n, path, nil, "must be a mapping of names to values, not %s", describe(n))
		return nil
	}
	var entries []entry
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch resolved := resolve(key); {
		case key.ShortTag() == "!!merge":
			d.problem(key, path, nil, "merge keys (<<) are not supported: write the fields out")
		case resolved.Kind != yaml.ScalarNode || isNull(resolved):
			d.problem(key, path, nil, "a key must be a name, not %s", describe(resolved))
		case first[resolved.Value] > 0:
			d.problem(key, join(path, resolved.Value), nil, "duplicate key: already set on line %d", first[resolved.Value])
			entries = append(entries, entry{resolved.Value, key, value, true})
		default:
			first[resolved.Value] = key.Line
			entries = append(entries, entry{resolved.Value, key, value, false})
		}
	}
	return entries
}

// look finds what is wrong with the value of a key that has been there before. The first one counts.
func (d *decoder) look(path string, n *yaml.Node, v reflect.Value) {
	other := decoder{lines: map[string]int{}, paths: d.paths}
	other.value(path, n, v)
	d.problems = append(d.problems, other.problems...)
}

// stringMap sets a map with string keys. An empty one is nil, as if left out.
func (d *decoder) stringMap(path string, n *yaml.Node, v reflect.Value) {
	result := reflect.MakeMap(v.Type())
	for _, e := range d.entries(path, n) {
		if isNull(resolve(e.value)) {
			continue // as if left out
		}
		child := fmt.Sprintf("%s[%s]", path, e.name)
		value := reflect.New(v.Type().Elem()).Elem()
		if e.again {
			d.look(child, e.value, value)
			continue
		}
		d.lines[child] = e.key.Line
		d.value(child, e.value, value)
		result.SetMapIndex(reflect.ValueOf(e.name).Convert(v.Type().Key()), value)
	}
	if result.Len() > 0 {
		v.Set(result)
	} else {
		v.SetZero()
	}
}

// list sets a slice. An empty one is nil, as if left out.
func (d *decoder) list(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.undecoded = append(d.undecoded, path)
		d.problem(n, path, nil, "must be a list, not %s", describe(n))
		return
	}
	result := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		child := fmt.Sprintf("%s[%d]", path, i)
		d.lines[child] = item.Line
		if isNull(resolve(item)) && v.Type().Elem().Kind() == reflect.String {
			d.undecoded = append(d.undecoded, child)
			d.problem(item, child, nil, "must not be null: leave it out")
			continue
		}
		d.value(child, item, result.Index(i))
	}
	if result.Len() > 0 {
		v.Set(result)
	} else {
		v.SetZero()
	}
}

const (
	wholeNumber = "a whole number"
	trueOrFalse = "true or false"
)

func isQuoted(n *yaml.Node) bool { return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 }

// isOctal tells whether a number is a surprise: 0644 is 420.
func isOctal(n *yaml.Node) bool {
	return len(n.Value) > 1 && n.Value[0] == '0' && strings.Trim(n.Value, "0123456789") == ""
}

func (d *decoder) scalar(path string, n *yaml.Node, v reflect.Value) {
	var want string
	ok := n.Kind == yaml.ScalarNode
	switch v.Kind() {
	case reflect.String:
		// A number or a bool is taken as written: v: 5 in extraArgs is "5".
		want = "a string"
		ok = ok && slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}, n.ShortTag())
		if ok {
			v.SetString(n.Value)
		}
	case reflect.Bool:
		want = trueOrFalse
		var b bool
		ok = ok && !isQuoted(n) && n.Decode(&b) == nil
		if ok {
			v.SetBool(b)
		}
	case reflect.Uint32:
		want = wholeNumber
		var i uint64
		ok = ok && n.ShortTag() == "!!int" && !isOctal(n) && n.Decode(&i) == nil && !v.OverflowUint(i)
		if ok {
			v.SetUint(i)
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		want = wholeNumber
		var i int64
		ok = ok && n.ShortTag() == "!!int" && !isOctal(n) && n.Decode(&i) == nil && !v.OverflowInt(i)
		if ok {
			v.SetInt(i)
		}
	default:
		want, ok = fmt.Sprintf("of a type k0s can decode (not %s: a bug)", v.Type()), false
	}
	if !ok {
		d.mustBe(path, n, want)
	}
}

// ownJSON sets a value of a type that decodes itself from JSON.
func (d *decoder) ownJSON(path string, n *yaml.Node, v reflect.Value) {
	d.note(path, n)
	target := reflect.New(v.Type())
	var content any
	err := n.Decode(&content)
	if err == nil {
		var data []byte
		data, err = json.Marshal(content)
		if err == nil {
			err = json.Unmarshal(data, target.Interface())
		}
	}
	switch {
	case err == nil:
		v.Set(target.Elem())
	case v.Type() == reflect.TypeFor[metav1.Duration]():
		d.mustBe(path, n, "a duration such as 8760h or 1m30s")
	default:
		d.undecoded = append(d.undecoded, path)
		d.problem(n, path, nil, "%s", err)
	}
}

// note remembers the lines of what others will decode, and refuses the keys that
// are refused everywhere, which it takes out.
func (d *decoder) note(path string, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		var kept []*yaml.Node
		for _, e := range d.entries(path, n) {
			child := join(path, e.name)
			if e.again {
				other := decoder{lines: map[string]int{}}
				other.note(child, e.value)
				d.problems = append(d.problems, other.problems...)
				continue
			}
			d.lines[child] = e.key.Line
			d.note(child, e.value)
			kept = append(kept, e.key, e.value)
		}
		n.Content = kept
	case yaml.SequenceNode:
		for i, item := range n.Content {
			child := fmt.Sprintf("%s[%d]", path, i)
			d.lines[child] = item.Line
			d.note(child, item)
		}
	}
}

func (d *decoder) mustBe(path string, n *yaml.Node, want string) {
	d.undecoded = append(d.undecoded, path)
	plain := *n
	plain.Style, plain.Tag = 0, ""
	switch {
	case n.Kind == yaml.ScalarNode && want == wholeNumber && isOctal(n):
		want += fmt.Sprintf(" without zeros before it, with which YAML takes it to be octal: did you mean %s?", cmp.Or(strings.TrimLeft(n.Value, "0"), "0"))
	case isQuoted(n) && (want == wholeNumber && plain.ShortTag() == "!!int" || want == trueOrFalse && plain.ShortTag() == "!!bool"):
		want += ", without quotes"
	}
	if n.Kind == yaml.ScalarNode {
		d.problem(n, path, n.Value, "must be %s", want)
	} else {
		d.problem(n, path, nil, "must be %s, not %s", want, describe(n))
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "null"
	default:
		return fmt.Sprintf("%q", n.Value)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// isWithin tells whether path is outer or something in it.
func isWithin(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}
