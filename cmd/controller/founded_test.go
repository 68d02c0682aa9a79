package controller

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k0s.io/k0s/internal/controlplane"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestFounded(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	start := func(config *v1beta1.ClusterConfig) error {
		_, err := identify(t.Context(), controlplane.Options{NodeName: "a", Layout: host.Layout{DataDir: dir}, Config: config}, store, nil, nil)
		return err
	}
	with := func(provider v1beta1.NetworkProvider) *v1beta1.ClusterConfig {
		config := v1beta1.Default()
		config.Spec.Network.Provider = provider
		return config
	}
	// Until the cluster is founded, another attempt may have another configuration.
	for _, provider := range []v1beta1.NetworkProvider{v1beta1.KubeRouterProvider, v1beta1.CustomProvider} {
		if err := start(with(provider)); err != nil {
			t.Fatal(err)
		}
	}
	id, err := identity.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(id.SetMember(), os.Mkdir(store, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := start(with(v1beta1.CustomProvider)); err != nil {
		t.Fatal(err)
	}
	kine := with(v1beta1.CustomProvider)
	kine.Spec.Storage.Type = v1beta1.KineStorage
	for want, config := range map[string]*v1beta1.ClusterConfig{`founded with "custom"`: with(v1beta1.KubeRouterProvider), `founded with "etcd"`: kine} {
		if err := start(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := start(with(v1beta1.CustomProvider)); err != nil {
		t.Errorf("the old configuration: %v", err)
	}
}
