package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"k0s.io/k0s/internal/etcdmembers"
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

// A controller that was killed while it left goes on if etcd has it still.
func TestResume(t *testing.T) {
	broken := errors.New("no certificate")
	for _, tc := range []struct {
		name     string
		standing etcdmembers.Standing
		err      error
		state    identity.State
		want     string
	}{
		{"etcd has refused", etcdmembers.Known, nil, identity.Member, "<nil>"},
		{"it has left", etcdmembers.Removed, nil, identity.Left, "<nil>"},
		{"nobody answers", etcdmembers.Unknown, nil, identity.Left, "(asked c2=https://192.0.2.2:2380)"},
		{"cannot ask", etcdmembers.Unknown, broken, identity.Left, "no certificate"},
	} {
		dir, id := member(t)
		if err := id.SetLeft(); err != nil {
			t.Fatal(err)
		}
		err := resume(id, func() (etcdmembers.Standing, error) { return tc.standing, tc.err })
		now, readErr := identity.Read(dir)
		if readErr != nil || now.State != tc.state || !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%s: got %v, %+v, %v", tc.name, err, now, readErr)
		}
	}
}

type fakeLeaver struct {
	refuse, err error
	removed     func()
}

func (f fakeLeaver) CanLeave(context.Context, []etcdmembers.Member, uint64) error { return f.refuse }

func (f fakeLeaver) Remove(context.Context, uint64, *slog.Logger) error {
	f.removed()
	return f.err
}

func TestLeaveEtcd(t *testing.T) {
	no := errors.New("no")
	for _, tc := range []struct {
		name    string
		leaver  fakeLeaver
		gone    bool
		removes bool
		state   identity.State
		want    error
	}{
		{"leaves", fakeLeaver{}, false, true, identity.Left, nil},
		{"etcd would refuse", fakeLeaver{refuse: no}, false, false, identity.Member, no},
		{"etcd refuses", fakeLeaver{err: no}, false, true, identity.Member, no},
		{"is gone, and nobody said so", fakeLeaver{err: no}, true, true, identity.Left, nil},
	} {
		dir, id := member(t)
		removes := false
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tc.leaver.removed = func() {
			removes = true
			cancel() // as when etcd took all the time there was
			if now, err := identity.Read(dir); err != nil || now.State != identity.Left {
				t.Errorf("%s: removed before it was noted: %+v, %v", tc.name, now, err)
			}
		}
		err := leaveEtcd(ctx, tc.leaver, id, nil, 1, slog.New(slog.DiscardHandler), func(ctx context.Context) bool { return tc.gone && ctx.Err() == nil })
		now, readErr := identity.Read(dir)
		if readErr != nil || now.State != tc.state || !errors.Is(err, tc.want) || removes != tc.removes {
			t.Errorf("%s: got %v, %+v, %v", tc.name, err, now, readErr)
		}
	}
}

// member is the identity of a member, kept in dir.
func member(t *testing.T) (dir string, id *identity.Identity) {
	t.Helper()
	dir = t.TempDir()
	id, err := identity.Found(dir, "c1", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(id.SetMember(), id.SetEtcd(1, []string{"c1=https://192.0.2.1:2380", "c2=https://192.0.2.2:2380"})); err != nil {
		t.Fatal(err)
	}
	return dir, id
}
