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
		{"unknown state", `{"clusterID":"c","role":"controller","state":"joining"}`, false, "newer k0s"},
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
