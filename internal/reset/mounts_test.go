package reset

import (
	"slices"
	"testing"

	"k0s.io/k0s/internal/host"
)

func TestParseMountinfo(t *testing.T) {
	const mountinfo = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /run/k0s/with\040space\134and\011tab rw - tmpfs tmpfs rw
41 22 0:36 /a /var/lib/k0s/kubelet/pods/x rw shared:5 master:1 - ext4 /dev/vdb rw

torn line
`
	want := []string{"/", "/run/k0s/with space\\and\ttab", "/var/lib/k0s/kubelet/pods/x"}
	if got := parseMountinfo(mountinfo); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSortMounts(t *testing.T) {
	const ours, foreign, neither = "ours", "foreign", "neither"
	l := host.Layout{DataDir: "/data/k0s", RunDir: "/run/k0s", KubeletRoot: "/data/k0s/kubelet"}
	roots := []string{"/data/k0s/kubelet", "/srv/kubelet"}
	for _, tc := range []struct{ point, want string }{
		{"/", neither},
		{"/data", neither},
		{"/data/k0s", neither}, // a disk to empty
		{"/data/k0s-2/etcd", neither},
		{"/run/k0s", neither},
		{"/run/k0s/containerd/task/rootfs", ours},
		{"/data/k0s/kubelet", neither},
		{"/data/k0s/kubelet/pods/1/volumes/x", ours},
		{"/srv/kubelet", neither},
		{"/srv/kubelet/pods", ours},
		{"/srv/kubelet-2/pods", neither},
		{"/data/k0s/etcd", neither},
		{"/data/k0s/etcd/member", foreign},
		{"/data/k0s/containerd", neither},
		{"/data/k0s/containerd/snapshotter", neither},
		{"/data/k0s/containerd/tmpmounts/mount1", ours},
		{"/data/k0s/backup", foreign},
		{"/data/k0s/images", foreign},
	} {
		got := neither
		us, them := sortMounts([]string{tc.point}, l, roots)
		switch {
		case len(us) > 0:
			got = ours
		case len(them) > 0:
			got = foreign
		}
		if got != tc.want {
			t.Errorf("%s is %s, want %s", tc.point, got, tc.want)
		}
	}
}
