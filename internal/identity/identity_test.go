package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFound(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "store")
	first, err := Found(dir, "a", missing)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Found(dir, "renamed", missing) // founding was interrupted
	if err != nil || again.ClusterID != first.ClusterID || again.MemberName != "a" {
		t.Fatalf("got %+v, %v", again, err)
	}
	if err := again.SetMember(); err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{dir, ""} { // it is there; it is elsewhere
		if id, err := Found(dir, "a", store); err != nil || id.State != Member || id.ClusterID != first.ClusterID {
			t.Errorf("got %+v, %v", id, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, file  string
		storeExists bool
		want        string
	}{
		{"data without identity", "", true, "is missing"},
		{"member without data", `{"clusterID":"c","role":"controller","state":"member"}`, false, "its data is gone"},
		{"another role", `{"clusterID":"c","role":"worker","state":"member"}`, true, "worker of cluster c"},
		{"unknown state", `{"clusterID":"c","role":"controller","state":"resting"}`, false, "newer k0s"},
		{"left", `{"clusterID":"c","role":"controller","state":"left"}`, true, "has left cluster c"},
		{"no state", `{"clusterID":"c","role":"controller"}`, true, "does not know"},
		{"damaged", `{`, true, "damaged"},
	} {
		dir := t.TempDir()
		if tc.file != "" {
			if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		store := filepath.Join(dir, "store")
		if tc.storeExists {
			store = dir
		}
		if _, err := Found(dir, "a", store); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

func TestJoining(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	id, err := JoinedController(dir, "a", store)
	if err != nil || id.State != Joining || id.Role != Controller {
		t.Fatalf("got %+v, %v", id, err)
	}
	for _, step := range []func() error{
		func() error { return id.SetCluster("c1") },
		func() error { return id.SetEtcd(7, []string{"a=https://192.0.2.1:2380"}) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	// Interrupted, it goes on to join, with a token or without: it never founds.
	for _, again := range []func(string, string, string) (*Identity, error){JoinedController, Found} {
		id, err := again(dir, "a", store)
		if err != nil || id.State != Joining || id.ClusterID != "c1" || id.EtcdMember != 7 || len(id.InitialCluster) != 1 {
			t.Errorf("got %+v, %v", id, err)
		}
	}
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := id.SetMember(); err != nil {
		t.Fatal(err)
	}
	if id, err := JoinedController(dir, "a", store); err != nil || id.State != Member {
		t.Errorf("a member with a token it does not need: got %+v, %v", id, err)
	}
	if _, err := Joined(dir, "a"); err == nil || !strings.Contains(err.Error(), "cannot start as a worker") {
		t.Errorf("got %v", err)
	}
	foreign := t.TempDir()
	if _, err := JoinedController(foreign, "a", foreign); err == nil || !strings.Contains(err.Error(), "no telling which") {
		t.Errorf("data without identity: got %v", err)
	}
}

func TestWorker(t *testing.T) {
	dir := t.TempDir()
	id, err := Joined(dir, "w")
	if err != nil || id.State != Joining || id.Role != Worker {
		t.Fatalf("got %+v, %v", id, err)
	}
	if err := id.SetAPIServers("192.0.2.1:6443"); err != nil {
		t.Fatal(err)
	}
	if err := id.JoinedCluster("c1"); err != nil {
		t.Fatal(err)
	}
	again, err := Joined(dir, "w")
	if err != nil || again.State != Member || again.Cluster() != "c1" || len(again.APIServers) != 1 {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := Found(dir, "w", ""); err == nil || !strings.Contains(err.Error(), "cannot start as a controller") {
		t.Errorf("got %v", err)
	}
}

// The running k0s and `k0s etcd leave` keep the same file.
func TestLeftByAnother(t *testing.T) {
	dir := t.TempDir()
	running, err := Found(dir, "a", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := running.SetMember(); err != nil {
		t.Fatal(err)
	}
	command, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	steps := func(steps ...func() error) {
		t.Helper()
		for _, step := range steps {
			if err := step(); err != nil {
				t.Error(err)
			}
		}
	}
	steps(func() error { return running.SetEtcd(1, []string{"a=x"}) }, command.SetLeft)
	steps(func() error { return running.SetEtcd(2, []string{"a=y"}) })
	if err := running.SetMember(); err == nil || !strings.Contains(err.Error(), "has left its cluster") {
		t.Errorf("got %v", err)
	}
	now, err := Read(dir)
	if err != nil || now.State != Left || now.EtcdMember != 2 || running.State != Member {
		t.Errorf("got %+v, %v", now, err)
	}
	// etcd has refused.
	steps(command.SetMember, func() error { return running.SetEtcd(3, []string{"a=z"}) })
	if now, err := Read(dir); err != nil || now.State != Member || now.EtcdMember != 3 {
		t.Errorf("got %+v, %v", now, err)
	}
	steps(command.SetLeft, running.SetLeft, running.SetMember)
}

// What could not be written is not so.
func TestNotWritten(t *testing.T) {
	dir := t.TempDir()
	id, err := Found(dir, "a", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := id.SetMember(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func() error{
		"SetLeft": id.SetLeft,
		"SetEtcd": func() error { return id.SetEtcd(1, []string{"a=x"}) },
		"Founded": func() error { return id.SetFounded(map[string]string{"a": "b"}) },
	} {
		if err := set(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if id.State != Member || id.EtcdMember != 0 || id.InitialCluster != nil || id.Founded != nil {
		t.Errorf("got %+v", id)
	}
}
