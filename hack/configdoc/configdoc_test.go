package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

const root = "../.."

func generated(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	content, err := jsonschema.UnmarshalJSON(bytes.NewReader(generated(t)["docs/k0s.schema.json"]))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("k0s.schema.json", content); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("k0s.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func decode(t *testing.T, file string) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(file), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestSchemaAccepts(t *testing.T) {
	schema := compiledSchema(t)
	files := map[string]string{
		"null sections": "spec: {api: , network: {kubeProxy: {mode: ~, iptables: ~}}, workerProfiles: ~}",
		"arguments":     "spec: {api: {extraArgs: {v: 2, profiling: false, a: b}}}",
		"any kubelet":   "spec: {workerProfiles: [{name: a, values: {maxPods: 1, evictionHard: {a: b}}}]}",
		"nanoseconds":   "spec: {extensions: {helm: {charts: [{timeout: 600000000000}, {timeout: 1m30s}]}}}",
	}
	for name, content := range generated(t) {
		if strings.HasSuffix(name, ".yaml") {
			files[name] = string(content)
		}
	}
	for _, pattern := range []string{"docs/examples/*.yaml", api + "/testdata/upstream*.yaml"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = string(content)
		}
	}
	for name, file := range files {
		if err := schema.Validate(decode(t, file)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	schema := compiledSchema(t)
	for name, file := range map[string]string{
		"kind":                "kind: Cluster",
		"a key of the file":   "sepc: {}",
		"a key of metadata":   "metadata: {nmae: x}",
		"a type":              "spec: {api: {port: '6443'}}",
		"a port":              "spec: {api: {port: 65536}}",
		"a value of a choice": "spec: {storage: {type: sqlite}}",
		"a duration":          "spec: {api: {ca: {expiresAfter: 10 years}}}",
		"a negative duration": "spec: {api: {ca: {expiresAfter: -1h}}}",
		"a list":              "spec: {api: {sans: a.example.org}}",
		"an item":             "spec: {featureGates: [{components: [kube-lego]}]}",
		"an argument":         "spec: {api: {extraArgs: {a: [b]}}}",
	} {
		if err := schema.Validate(decode(t, file)); err == nil {
			t.Errorf("%s was accepted: %s", name, file)
		}
	}
	// An unknown key in each section.
	for _, f := range v1beta1.Fields() {
		if !f.Section {
			continue
		}
		file := "unknown: 1"
		if f.Type.Kind() == reflect.Slice {
			file = "[{unknown: 1}]"
		}
		for _, name := range slices.Backward(strings.Split(f.Path, ".")) {
			name, isList := strings.CutSuffix(name, "[]")
			if !strings.HasPrefix(file, "[") {
				file = "{" + file + "}"
			}
			if isList {
				file = "[" + file + "]"
			}
			file = name + ": " + file
		}
		if err := schema.Validate(decode(t, file)); err == nil || !strings.Contains(err.Error(), "'unknown'") {
			t.Errorf("an unknown key in %s: %v\n%s", f.Path, err, file)
		}
	}
}

// TestSchemaHasTheTags: choices and limits are those that k0s enforces, and every
// field is there with its explanation.
func TestSchemaHasTheTags(t *testing.T) {
	var file schema
	if err := json.Unmarshal(generated(t)["docs/k0s.schema.json"], &file); err != nil {
		t.Fatal(err)
	}
	for _, f := range v1beta1.Fields() {
		at := &file
		for name := range strings.SplitSeq(f.Path, ".") {
			name, isList := strings.CutSuffix(name, "[]")
			if at = at.Properties[name]; at == nil {
				t.Fatalf("%s is not in the schema", f.Path)
			}
			if isList {
				at = at.Items
			}
		}
		if at.Description == "" {
			t.Errorf("%s has no description", f.Path)
		}
		for _, limit := range []struct {
			tag string
			got *int64
		}{{"min", at.Minimum}, {"max", at.Maximum}} {
			got := ""
			if limit.got != nil {
				got = strconv.FormatInt(*limit.got, 10)
			}
			if want := f.Tag.Get(limit.tag); got != want {
				t.Errorf("%s: got %s %q, want %q", f.Path, limit.tag, got, want)
			}
		}
		enum := at.Enum
		if f.Type.Kind() == reflect.Slice && at.Items != nil {
			enum = at.Items.Enum
		}
		var values []string
		for _, value := range enum {
			if value != nil { // which stands for the default
				values = append(values, value.(string))
			}
		}
		if got, want := strings.Join(values, ","), f.Tag.Get("enum"); got != want {
			t.Errorf("%s: got the values %q, want %q", f.Path, got, want)
		}
	}
}

// TestReferenceIsComplete: every field stands in docs/configuration.md.
func TestReferenceIsComplete(t *testing.T) {
	spec, err := readTree(filepath.Join(root, api))
	if err != nil {
		t.Fatal(err)
	}
	text := string(reference(spec))
	var check func(e *entry, section string, below string)
	check = func(e *entry, section, below string) {
		for _, child := range e.children {
			switch {
			case child.status() == "gone" && len(child.children) > 0:
				check(child, section, below)
				continue
			case child.status() == "gone":
				if !strings.Contains(text, "| `"+child.Path+"` |") {
					t.Errorf("%s is missing among what has no effect", child.Path)
				}
				continue
			case itemType(child.Type).Name() == patches && child.live():
				check(child, "Patches", "")
				continue
			}
			path := child.Path
			if child.isList() {
				path += "[]"
			}
			if strings.Contains(text, "\n### "+path+"\n") {
				check(child, path, "")
				continue
			}
			_, after, _ := strings.Cut(text, "\n### "+section+"\n")
			after, _, _ = strings.Cut(after, "\n### ")
			key := below + child.key
			switch {
			case strings.Contains(after, "| `"+key+"` |"):
			case len(child.children) > 0 && child.Section && child.Path == "spec."+child.key:
				// spec.extensions itself has no heading when none of it is supported.
			default:
				t.Errorf("%s is missing in %s", child.Path, section)
			}
			if child.isList() {
				key += "[]"
			}
			if itemType(child.Type).Name() != patches {
				check(child, section, key+".")
			}
		}
	}
	check(spec, "", "")
}

func TestExplain(t *testing.T) {
	for _, tc := range []struct{ comment, name, key, want string }{
		{"Port is the port of x.", "Port", "port", "The port of x."},
		{"CAFile makes y.", "CAFile", "caFile", "Makes y."},
		{"Name of the profile.", "Name", "name", "Name of the profile."},
		{"DefaultPullPolicy of the pods.", "DefaultPullPolicy", "default_pull_policy", "default_pull_policy of the pods."},
		{"Mode is iptables or not.", "Mode", "mode", "iptables or not."},
		{"ChartName is repository/chart.", "ChartName", "chartname", "repository/chart."},
		{"Whatever it is.", "Port", "port", "Whatever it is."},
	} {
		if got := explain(tc.comment, tc.name, tc.key); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.comment, got, tc.want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{
		"see spec.api.port, or podCIDR":     "see `spec.api.port`, or `podCIDR`",
		"only with autoMTU: false":          "only with `autoMTU: false`",
		"in <data-dir>/db/state.db, always": "in `<data-dir>/db/state.db`, always",
		"a | b":                             `a \| b`,
		"as `podCIDR x` is":                 "as `podCIDR x` is",
		"kube-apiserver, PostgreSQL":        "kube-apiserver, PostgreSQL",
	} {
		if got := markdown(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
