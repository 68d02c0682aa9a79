package v1beta1

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// TestDefaultFile: what `k0s config create` prints are the defaults.
func TestDefaultFile(t *testing.T) {
	for _, images := range []bool{false, true} {
		config, err := Parse([]byte(DefaultFile(images)), nil)
		if err != nil {
			t.Fatalf("images %v: %v", images, err)
		}
		want := Default()
		want.Namespace, config.Namespace = "", "" // not in the file: k0s does not look at it
		if !reflect.DeepEqual(config, want) {
			t.Errorf("images %v: got %+v\nwant %+v", images, config, want)
		}
		if has := strings.Contains(DefaultFile(images), PauseImage); has != images {
			t.Errorf("images %v: the file has images: %v", images, has)
		}
	}
}

// TestDefaultFileExamples: each example in the default file can be taken by
// removing its #.
func TestDefaultFileExamples(t *testing.T) {
	lines := strings.SplitAfter(DefaultFile(true), "\n")
	for i, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		rest, isComment := strings.CutPrefix(line[indent:], "# ")
		key, value, hasKey := strings.Cut(rest, ":")
		if !isComment || !hasKey || strings.ContainsAny(key, " .") || strings.TrimSpace(value) == "" ||
			slices.Contains([]string{"mtu", "caFile", "clientCertFile", "clientKeyFile", "endpoints", "etcdPrefix", "peerRouterIPs", "peerRouterASNs", "hairpinMode"}, key) {
			continue // an explanation, a block, or not without another field
		}
		changed := slices.Clone(lines)
		changed[i] = line[:indent] + rest
		if _, err := Parse([]byte(strings.Join(changed, "")), nil); err != nil {
			t.Errorf("%q: %v", strings.TrimSpace(line), err)
		}
	}
}

// TestUpstreamFile: the default files of upstream k0s are accepted.
func TestUpstreamFile(t *testing.T) {
	for _, name := range []string{"upstream.yaml", "upstream-images.yaml"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		config, err := Parse(data, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if mode, hairpin := config.Spec.Network.KubeProxy.Mode, config.Spec.Network.KubeRouter.Hairpin; mode != IPTablesProxyMode || hairpin != HairpinEnabled {
			t.Errorf("%s: got kube-proxy mode %q and hairpin %q", name, mode, hairpin)
		}
		for _, warning := range config.Warnings() {
			if !strings.Contains(warning, ".image") && !strings.HasPrefix(warning, "spec.extensions.storage.") {
				t.Errorf("%s: %s", name, warning)
			}
		}
	}
}

// TestExampleFiles: the files in docs/examples are accepted without a warning,
// and say the same when they have been written and read again.
func TestExampleFiles(t *testing.T) {
	files, err := filepath.Glob("../../../../docs/examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d examples, %v", len(files), err)
	}
	for _, file := range files {
		config, err := Load(file, nil, nil)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if warnings := config.Warnings(); len(warnings) > 0 {
			t.Errorf("%s: %s", file, strings.Join(warnings, "\n"))
		}
		if reflect.DeepEqual(config.Spec, Default().Spec) {
			t.Errorf("%s says nothing", file)
		}
		data, err := yaml.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(data, nil)
		if err != nil {
			t.Errorf("%s, written: %v", file, err)
		} else if !reflect.DeepEqual(config, again) {
			t.Errorf("%s, written: got %+v\nwant %+v", file, again, config)
		}
	}
}

// TestFieldExamples: the example of each field is accepted in a file with little
// else. That of a field which is not supported is at least of the right type.
func TestFieldExamples(t *testing.T) {
	needed := map[string]map[string]string{
		"spec.network.dualStack.enabled": {
			"spec.network.dualStack.IPv6podCIDR": "fd00::/108", "spec.network.dualStack.IPv6serviceCIDR": "fd01::/108",
		},
		"spec.network.kuberouter.mtu":            {"spec.network.kuberouter.autoMTU": "false"},
		"spec.network.kuberouter.peerRouterIPs":  {"spec.network.kuberouter.peerRouterASNs": `"64513"`},
		"spec.network.kuberouter.peerRouterASNs": {"spec.network.kuberouter.peerRouterIPs": "192.0.2.1"},
	}
	fields := Fields()
	for _, f := range fields {
		example, ok := f.Tag.Lookup("example")
		if f.Section && !ok {
			continue
		}
		if !ok {
			t.Errorf("%s has no example", f.Path)
			continue
		}
		file := map[string]any{}
		supported := true
		for _, other := range fields {
			beside := !other.Section && strings.HasPrefix(other.Path, optionalAround(f.Path, fields)+".")
			around := strings.HasPrefix(f.Path, strings.TrimSuffix(other.Path, "[]"))
			if beside {
				set(t, file, other.Path, other.Tag.Get("example"))
			}
			if beside || around {
				_, later := other.Tag.Lookup("later")
				_, never := other.Tag.Lookup("never")
				supported = supported && !later && !never
			}
		}
		for path, value := range needed[f.Path] {
			set(t, file, path, value)
		}
		set(t, file, f.Path, example)
		data, err := yaml.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(data, nil)
		var problems *Error
		switch {
		case err == nil:
		case supported || !errors.As(err, &problems):
			t.Errorf("%s: %v\n%s", f.Path, err, data)
		default:
			for _, p := range problems.Problems {
				if !strings.Contains(p.Reason, "not supported") {
					t.Errorf("%s: %v\n%s", f.Path, p, data)
				}
			}
		}
	}
}

// optionalAround is the path of the item or section around a field that is not
// there by default, and needs its other fields, too; "none" if there is none.
func optionalAround(path string, fields []Field) string {
	best := "none"
	for _, f := range fields {
		p := f.Path
		if f.Type.Kind() == reflect.Slice {
			p += "[]"
		}
		if f.Section && (f.Type.Kind() == reflect.Slice || f.Type.Kind() == reflect.Pointer) && strings.HasPrefix(path, p+".") {
			best = p
		}
	}
	return best
}

// set puts a value, given as YAML, into a file. Lists get one item.
func set(t *testing.T, file map[string]any, path, value string) {
	t.Helper()
	names := strings.Split(path, ".")
	last := len(names) - 1
	for _, name := range names[:last] {
		name, isList := strings.CutSuffix(name, "[]")
		if file[name] == nil {
			item := map[string]any{}
			file[name] = item
			if isList {
				file[name] = []any{item}
			}
		}
		inner := file[name]
		if isList {
			inner = inner.([]any)[0]
		}
		file = inner.(map[string]any)
	}
	var decoded any
	if err := yamlv3.Unmarshal([]byte(value), &decoded); err != nil {
		t.Fatalf("the example of %s: %v", path, err)
	}
	file[names[last]] = decoded
}
