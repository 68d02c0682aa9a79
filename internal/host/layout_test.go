package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLayoutHasNoSymbolicLinks(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	join := func(name string) string { return filepath.Join(top, name) }
	for _, dir := range []string{"disk/k0s", "disk/kubelet"} {
		if err := os.MkdirAll(join(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": join("disk/k0s"), "parent": "disk", "dangling": "nowhere"} {
		if err := os.Symlink(target, join(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ name, dataDir, kubeletRoot, wantData, wantLink, wantKubelet string }{
		{"none", "disk/k0s", "", "disk/k0s", "", "disk/k0s/kubelet"},
		{"the directory", "link", "", "disk/k0s", "link", "disk/k0s/kubelet"},
		{"the directory, with a slash", "link/", "", "disk/k0s", "link", "disk/k0s/kubelet"},
		{"a parent", "parent/k0s", "", "disk/k0s", "", "disk/k0s/kubelet"},
		{"a parent of what is missing", "parent/new/k0s", "", "disk/new/k0s", "", "disk/new/k0s/kubelet"},
		{"the kubelet's", "disk/k0s", "parent/kubelet", "disk/k0s", "", "disk/kubelet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kubeletRoot := tc.kubeletRoot
			if kubeletRoot != "" {
				kubeletRoot = join(kubeletRoot)
			}
			l, err := NewLayout(top+"/"+tc.dataDir, kubeletRoot)
			if err != nil {
				t.Fatal(err)
			}
			if l.DataDir != join(tc.wantData) || l.KubeletRoot != join(tc.wantKubelet) {
				t.Errorf("got %+v", l)
			}
			if tc.wantLink != "" {
				tc.wantLink = join(tc.wantLink)
			}
			if l.DataDirLink != tc.wantLink {
				t.Errorf("the link is %q, want %q", l.DataDirLink, tc.wantLink)
			}
		})
	}
	if _, err := NewLayout(join("dangling"), ""); err == nil || !strings.Contains(err.Error(), "which does not exist") {
		t.Errorf("a dangling link gives %v", err)
	}
}
