package memberobjects

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/pkg/apis/etcd/v1beta1"
)

type fakeMembers struct {
	Members
	all     []etcdmembers.Member
	fail    error
	dead    uint64
	removed []uint64
}

func (f *fakeMembers) List(context.Context) ([]etcdmembers.Member, error) { return f.all, f.fail }

func (f *fakeMembers) Leads(context.Context) (bool, error) { return true, nil }

func (f *fakeMembers) Alive(_ context.Context, m etcdmembers.Member) bool { return m.ID != f.dead }

func (f *fakeMembers) Remove(_ context.Context, id uint64, _ *slog.Logger) error {
	f.removed = append(f.removed, id)
	return nil
}

// newKeeper is that of the leader c0, whose requests to the API are noted.
func newKeeper(t *testing.T, f *fakeMembers, requests *[]string) *keeper {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests = append(*requests, r.Method+" "+r.URL.Path[strings.Index(r.URL.Path, "/etcdmembers"):])
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(api.Close)
	client, err := restClient(&rest.Config{Host: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	return &keeper{
		Options: Options{
			Members: f, Name: "c0", Log: slog.New(slog.DiscardHandler),
			Leave:      func(context.Context, []etcdmembers.Member, uint64) error { return nil },
			WasRemoved: func(context.Context) bool { return false },
			Note:       func([]etcdmembers.Member, uint64) error { return nil },
		},
		client: client, silent: map[uint64]time.Time{},
	}
}

// What fails for the leader itself does not keep it from looking after the others.
func TestLeaderInTrouble(t *testing.T) {
	no := errors.New("disk full")
	for _, tc := range []struct {
		name    string
		leaving bool
		set     func(*keeper)
	}{
		{"cannot note", false, func(k *keeper) { k.Note = func([]etcdmembers.Member, uint64) error { return no } }},
		{"cannot leave", true, func(k *keeper) { k.Leave = func(context.Context, []etcdmembers.Member, uint64) error { return no } }},
	} {
		var requests []string
		k := newKeeper(t, &fakeMembers{all: []etcdmembers.Member{member(1, "c0", false), member(2, "c1", false)}}, &requests)
		tc.set(k)
		_, left, err := k.look(t.Context(), map[string]*v1beta1.EtcdMember{"c0": object("c0", "1", tc.leaving, tc.leaving)})
		if left || !errors.Is(err, no) || !slices.Contains(requests, "PUT /etcdmembers/c1/status") {
			t.Errorf("%s: got %v, %v, %q", tc.name, left, err, requests)
		}
	}
}

// Of two that are to leave, the silent one is taken out, for etcd refuses the other while it is there.
func TestSilentFirst(t *testing.T) {
	f := &fakeMembers{all: []etcdmembers.Member{member(1, "c0", false), member(2, "c1", false), member(3, "c2", false)}, dead: 2}
	var requests []string
	k := newKeeper(t, f, &requests)
	k.Leave = func(context.Context, []etcdmembers.Member, uint64) error { return errors.New("c1 does not answer") }
	objects := func() map[string]*v1beta1.EtcdMember {
		return map[string]*v1beta1.EtcdMember{"c0": object("c0", "1", true, true), "c1": object("c1", "2", true, false)}
	}
	_, _, _ = k.look(t.Context(), objects())
	if len(f.removed) > 0 || k.silent[2].IsZero() {
		t.Fatalf("got %v, %v", f.removed, k.silent)
	}
	k.silent[2] = time.Now().Add(-lostAfter)
	_, _, _ = k.look(t.Context(), objects())
	if !slices.Equal(f.removed, []uint64{2}) {
		t.Errorf("removed %v", f.removed)
	}
	f.dead, f.removed = 0, nil
	_, _, _ = k.look(t.Context(), objects())
	if len(f.removed) > 0 || len(k.silent) > 0 {
		t.Errorf("it has come back: removed %v, silent %v", f.removed, k.silent)
	}
}

// A controller that others have taken out finds that when its etcd does not answer.
func TestWasRemoved(t *testing.T) {
	for _, removed := range []bool{true, false} {
		var requests []string
		k := newKeeper(t, &fakeMembers{fail: errors.New("connection refused")}, &requests)
		k.WasRemoved = func(context.Context) bool { return removed }
		if _, left, err := k.look(t.Context(), nil); left != removed || err == nil {
			t.Errorf("got %v, %v", left, err)
		}
	}
}
