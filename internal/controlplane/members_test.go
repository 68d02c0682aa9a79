package controlplane

import (
	"errors"
	"testing"

	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestEtcdGrows(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*Options)
		want bool
	}{
		{"etcd of k0s", func(o *Options) { o.Alone = false }, true},
		{"alone", func(o *Options) { o.Alone = true }, false},
		{"kine", func(o *Options) { o.Alone = false; withKine("postgres://u:p@192.0.2.9/k")(o) }, false},
		{"an etcd elsewhere", func(o *Options) { o.Alone = false; withExternalEtcd(o) }, false},
	} {
		o := options(t, tc.set)
		if got := o.etcdGrows(); got != tc.want {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}

// Nobody is asked about a member that nobody can know.
func TestWasRemovedKeepsTheReason(t *testing.T) {
	reason := errors.New("disk full")
	for _, id := range []*identity.Identity{{State: identity.Joining, EtcdMember: 1}, {State: identity.Member}} {
		o := Options{Identity: id, Config: &v1beta1.ClusterConfig{}}
		if err := wasRemoved(t.Context(), o, reason); !errors.Is(err, reason) || err.Error() != reason.Error() {
			t.Errorf("%s: got %v", id.State, err)
		}
	}
}
