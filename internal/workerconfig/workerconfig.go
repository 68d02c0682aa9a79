// Package workerconfig is how controllers tell workers of their settings: by a ConfigMap per worker
// profile, which workers watch, and keep a copy of to start by.
package workerconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/manifests"
	"k0s.io/k0s/internal/version"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// Stack is the name of the stack of the ConfigMaps.
const Stack = "worker-config"

// Namespace is where the ConfigMaps are.
const Namespace = metav1.NamespaceSystem

// prefix of the ConfigMaps' names, between it and the version of Kubernetes is the profile: a worker
// that is updated later than its controllers keeps the settings of its own version.
const prefix = "worker-config-"

// Keys of a ConfigMap.
const (
	clusterKey = "clusterID"
	configKey  = "config"
	tunnelKey  = "tunnel" // withoutTunnel, or not there
)

const withoutTunnel = "none"

// Settings are what a worker is told.
type Settings struct {
	ClusterID string                 `json:"clusterID"`
	Config    *v1beta1.ClusterConfig `json:"config"`
	// WithoutTunnel: the controllers expect no connections of the nodes.
	WithoutTunnel bool `json:"withoutTunnel,omitempty"`
}

// Name is the name of a profile's ConfigMap.
func Name(profile string) string { return prefix + profile + "-" + version.Minor() }

// Objects are the stack for the workers of a cluster: a ConfigMap per profile of what s says, and leave for
// nodes to read them, and which API servers there are.
func Objects(s Settings) (manifests.Stack, error) {
	stack := manifests.Stack{Name: Stack}
	var names []string
	for _, profile := range s.Config.ProfileNames() {
		content, err := json.Marshal(s.Config.ForWorkers(profile))
		if err != nil {
			return stack, fmt.Errorf("the settings of profile %s: %w", profile, err)
		}
		data := map[string]string{clusterKey: s.ClusterID, configKey: string(content)}
		if s.WithoutTunnel {
			data[tunnelKey] = withoutTunnel
		}
		name := Name(profile)
		names = append(names, name)
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace},
			Data:       data,
		})
		if err != nil {
			return stack, err
		}
		stack.Objects = append(stack.Objects, manifests.Object{Unstructured: &unstructured.Unstructured{Object: object}, Source: Stack})
	}
	reader, err := readers(names)
	stack.Objects = append(stack.Objects, reader...)
	return stack, err
}

// readers lets nodes, and nobody else, read the ConfigMaps, and which API servers there are.
func readers(names []string) ([]manifests.Object, error) {
	var list strings.Builder
	for _, name := range names {
		fmt.Fprintf(&list, "%q, ", name)
	}
	objects, _, err := manifests.Parse(Stack+".yaml", fmt.Appendf(nil, `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: system:nodes:worker-config, namespace: %[1]s}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [%[2]s], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: system:nodes:worker-config, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: system:nodes:worker-config}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:nodes}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: system:nodes:api-servers, namespace: default}
rules:
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: system:nodes:api-servers, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: system:nodes:api-servers}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:nodes}
`, Namespace, strings.TrimSuffix(list.String(), ", ")))
	return objects, err
}

// FromConfigMap reads what the controllers have written.
func FromConfigMap(m *corev1.ConfigMap) (*Settings, error) {
	config := v1beta1.Default()
	// Not strictly: controllers of a later patch release may know more fields.
	if err := json.Unmarshal([]byte(m.Data[configKey]), config); err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s does not say what a worker of this version needs: %w", m.Namespace, m.Name, err)
	}
	if m.Data[clusterKey] == "" {
		return nil, fmt.Errorf("ConfigMap %s/%s names no cluster", m.Namespace, m.Name)
	}
	return &Settings{ClusterID: m.Data[clusterKey], Config: config, WithoutTunnel: m.Data[tunnelKey] == withoutTunnel}, nil
}

// Load reads the copy that was saved in a file; nil if there is none.
func Load(path string) (*Settings, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &Settings{}
	if err := json.Unmarshal(content, s); err != nil || s.Config == nil {
		return nil, fmt.Errorf("%s is damaged (%w): delete it, and the worker asks the API again", path, err)
	}
	return s, nil
}

// Save keeps a copy in a file, so that the worker can start without the API.
func (s *Settings) Save(path string) error {
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return file.Write(path, content, 0o600, file.Options{Durable: true})
}
