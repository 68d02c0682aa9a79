package controlplane

import (
	"testing"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestCheckKineUser(t *testing.T) {
	const refusal = "kine lets nobody but its own user use its socket, and kube-apiserver (user nobody) must: give kineUser and kubeAPIserverUser the same value"
	for _, tc := range []struct {
		storage         v1beta1.StorageType
		kine, apiServer string
		want            string
	}{
		{v1beta1.KineStorage, "nobody", "nobody", ""},
		{v1beta1.KineStorage, "root", "nobody", refusal},
		{v1beta1.KineStorage, "no-such-user", "nobody", refusal}, // it would be root
		{v1beta1.KineStorage, "daemon", "nobody", refusal},
		{v1beta1.KineStorage, "kube-apiserver", "nobody", ""}, // nobody was chosen for kine: it goes along
		{v1beta1.KineStorage, "nobody", "root", ""},
		{v1beta1.KineStorage, "nobody", "no-such-user", ""},
		{v1beta1.EtcdStorage, "daemon", "nobody", ""},
	} {
		config := v1beta1.Default()
		config.Spec.Storage.Type = tc.storage
		config.Spec.InstallConfig.Users.KineUser, config.Spec.InstallConfig.Users.KubeAPIServerUser = tc.kine, tc.apiServer
		got := ""
		for _, problem := range CheckKineUser(config) {
			got += problem.Reason
		}
		if got != tc.want {
			t.Errorf("%s, kine %s, API server %s: got %q, want %q", tc.storage, tc.kine, tc.apiServer, got, tc.want)
		}
	}
}

func TestKineUser(t *testing.T) {
	for _, tc := range []struct{ kine, apiServer, want string }{
		{"kube-apiserver", "nobody", "nobody"},
		{"kube-apiserver", "root", "kube-apiserver"},
		{"kube-apiserver", "no-such-user", "kube-apiserver"},
		{"daemon", "nobody", "daemon"},
	} {
		config := v1beta1.Default()
		config.Spec.InstallConfig.Users.KineUser, config.Spec.InstallConfig.Users.KubeAPIServerUser = tc.kine, tc.apiServer
		if got := kineUser(config); got != tc.want {
			t.Errorf("kine %s, API server %s: got %s, want %s", tc.kine, tc.apiServer, got, tc.want)
		}
	}
}
