package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		objects    []string // kind namespace/name source
		warning    string
		err        string
	}{
		"nothing":        {text: ""},
		"only comments":  {text: "# one\n---\n# two\n"},
		"two documents":  {text: "# c\napiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n\n# c\napiVersion: v1\nkind: B\nmetadata: {name: b, namespace: ns}\n", objects: []string{"A a f.yaml:2", "B ns/b f.yaml:8"}},
		"comment on ---": {text: "--- # first\napiVersion: v1\nkind: A\nmetadata: {name: a}\n...\n--- {apiVersion: v1, kind: B, metadata: {name: b}}\n", objects: []string{"A a f.yaml:2", "B b f.yaml:6"}},
		"--- in a text": {
			text:    "apiVersion: v1\nkind: A\nmetadata: {name: a}\ndata:\n  x: |\n    ---\n    y\n",
			objects: []string{"A a f.yaml:1"},
		},
		"windows":            {text: "\xef\xbb\xbfapiVersion: v1\r\nkind: A\r\nmetadata:\r\n  name: a\r\n---\r\napiVersion: v1\r\nkind: B\r\nmetadata: {name: b}\r\n", objects: []string{"A a f.yaml:1", "B b f.yaml:6"}},
		"list":               {text: "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A, metadata: {name: a}}\n- {apiVersion: v1, kind: BList, items: [{apiVersion: v1, kind: B, metadata: {name: b}}]}\n", objects: []string{"A a f.yaml:1", "B b f.yaml:1"}},
		"no object":          {text: "replicas: 3\n---\n{apiVersion: v1, kind: A, metadata: {name: a}}", objects: []string{"A a f.yaml:3"}, warning: "f.yaml:1: skipped"},
		"no kind":            {text: "\napiVersion: v1\n", err: "f.yaml:2: object of apiVersion v1 has no kind"},
		"no apiVersion":      {text: "---\nkind: A\n", err: "f.yaml:2: A has no apiVersion"},
		"a sequence":         {text: "- a\n", err: "f.yaml:1: this is not a Kubernetes object"},
		"list of nonsense":   {text: "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1}]", err: "f.yaml:1: item 0 of List: object of apiVersion v1 has no kind"},
		"bad indentation":    {text: "apiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B\nmetadata:\n  name: b\n   namespace: n\n", err: "f.yaml: not valid YAML: line 8:"},
		"a key too far in":   {text: "---\napiVersion: v1\nkind: B\nmetadata:\n  name: \"b\"\n   oops: 1\n", err: "f.yaml: not valid YAML: line 6: did not find expected key"},
		"unclosed":           {text: "apiVersion: v1\nkind: A\n---\nmetadata: {name: a\n", err: "f.yaml: not valid YAML: line "},
		"twice the same key": {text: "apiVersion: v1\nkind: A\n---\nkind: B\nkind: C\n", err: `f.yaml: not valid YAML: line 5: key "kind" already set in map`},
		"tab":                {text: "apiVersion: v1\nkind: A\nmetadata:\n\tname: a\n", err: "f.yaml: not valid YAML: line 4:"},
		"json":               {file: "f.json", text: "\n{\n\t\"apiVersion\": \"v1\", \"kind\": \"A\", \"metadata\": {\"name\": \"a\"}}\n{\"apiVersion\": \"v1\", \"kind\": \"B\", \"metadata\": {\"name\": \"b\"}}", objects: []string{"A a f.json:2", "B b f.json:4"}},
		"broken json":        {file: "f.json", text: "{\n\"apiVersion\": \"v1\",\n}", err: "f.json: not valid JSON: line 3:"},
		"half of a json":     {file: "f.json", text: "{\"apiVersion\": \"v1\",\n\"kind\":", err: "f.json: not valid JSON: line 2:"},
	} {
		t.Run(name, func(t *testing.T) {
			file := test.file
			if file == "" {
				file = "f.yaml"
			}
			objects, warnings, err := Parse(file, []byte(test.text))
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Fatalf("error is %v, expected %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range objects {
				got = append(got, fmt.Sprintf("%s %s", describe(o.GetKind(), o.GetNamespace(), o.GetName()), o.Source))
			}
			if !slices.Equal(got, test.objects) {
				t.Errorf("got %q, expected %q", got, test.objects)
			}
			if all := strings.Join(warnings, "\n"); !strings.HasPrefix(all, test.warning) || (all != "") != (test.warning != "") {
				t.Errorf("warnings are %q, expected %q", all, test.warning)
			}
		})
	}
}

func TestParseKeepsWholeNumbers(t *testing.T) {
	s := parsed(t, "numbers", "{apiVersion: v1, kind: A, metadata: {name: a}, mode: 0644, count: 3, share: 0.5}")
	for field, want := range map[string]any{"mode": int64(420), "count": int64(3), "share": 0.5} {
		if got := s.Objects[0].Object[field]; got != want {
			t.Errorf("%s is %T %v, expected %T %v", field, got, got, want, want)
		}
	}
}
