package host

import "golang.org/x/sys/unix"

// Warnings lists in what this host is less than perfect, though good enough.
func Warnings() []string {
	var w []string
	if version, err := CgroupVersion(); err == nil && version == 1 {
		w = append(w, "it has cgroup v1 only, which Kubernetes is about to give up")
	}
	if !HasCapability(unix.CAP_SYS_RESOURCE) {
		w = append(w, "k0s lacks CAP_SYS_RESOURCE, so containers' OOM scores cannot be lowered")
	}
	return w
}
