package workerconfig

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func config(t *testing.T) *v1beta1.ClusterConfig {
	t.Helper()
	c, err := v1beta1.Parse([]byte("spec: {network: {podCIDR: 10.42.0.0/16}, workerProfiles: [{name: dense, values: {maxPods: 250}}]}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// configMaps are the ConfigMaps of the stack by name.
func configMaps(t *testing.T) map[string]*corev1.ConfigMap {
	t.Helper()
	stack, err := Objects(Settings{ClusterID: "c1", Config: config(t), WithoutTunnel: true})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*corev1.ConfigMap{}
	var kinds []string
	for _, o := range stack.Objects {
		kinds = append(kinds, o.GetKind())
		if o.GetKind() != "ConfigMap" {
			continue
		}
		m := &corev1.ConfigMap{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, m); err != nil {
			t.Fatal(err)
		}
		found[m.Name] = m
	}
	if got := strings.Join(kinds, " "); got != "ConfigMap ConfigMap Role RoleBinding Role RoleBinding" {
		t.Errorf("the stack has %s", got)
	}
	return found
}

func TestRoundTrip(t *testing.T) {
	maps := configMaps(t)
	for _, profile := range []string{"default", "dense"} {
		m := maps[Name(profile)]
		if m == nil {
			t.Fatalf("there is no ConfigMap %s", Name(profile))
		}
		read, err := FromConfigMap(m)
		if err != nil {
			t.Fatal(err)
		}
		if read.ClusterID != "c1" || !read.WithoutTunnel || !reflect.DeepEqual(read.Config, config(t).ForWorkers(profile)) {
			t.Errorf("%s: got %+v", profile, read)
		}
		file := filepath.Join(t.TempDir(), "copy.json")
		if err := read.Save(file); err != nil {
			t.Fatal(err)
		}
		copied, err := Load(file)
		if err != nil || !reflect.DeepEqual(copied, read) {
			t.Errorf("%s: the copy is %+v, %v", profile, copied, err)
		}
	}
}

func TestFromConfigMap(t *testing.T) {
	good := configMaps(t)[Name("default")]
	for what, change := range map[string]func(m *corev1.ConfigMap){
		"names no cluster":  func(m *corev1.ConfigMap) { delete(m.Data, clusterKey) },
		"does not say what": func(m *corev1.ConfigMap) { m.Data[configKey] = "{" },
	} {
		m := good.DeepCopy()
		change(m)
		if _, err := FromConfigMap(m); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want %q", err, what)
		}
	}
	later := good.DeepCopy()
	later.Data[configKey] = strings.Replace(later.Data[configKey], `"spec":{`, `"spec":{"invented":{"later":1},`, 1)
	if _, err := FromConfigMap(later); err != nil {
		t.Errorf("a field of a later version: %v", err)
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "copy.json")
	if s, err := Load(file); s != nil || err != nil {
		t.Errorf("no file: got %v, %v", s, err)
	}
	for _, content := range []string{"", "{}", "[]"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(file); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("%q: got %v, %v", content, s, err)
		}
	}
}
