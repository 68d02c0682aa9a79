package store

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fake is a store that knows what kine knows: reads, and the creation of a key that is not there.
type fake struct {
	etcdserverpb.UnimplementedKVServer

	mu   sync.Mutex
	keys map[string]string
	err  error  // the answer to everything
	race func() // runs before a key is created
}

func (f *fake) Range(_ context.Context, r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if r.Serializable || r.SortOrder != 0 || r.SortTarget != 0 {
		return nil, status.Error(codes.Unimplemented, "kine does not know that")
	}
	found := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{}}
	for key, value := range f.keys {
		if key == string(r.Key) || len(r.RangeEnd) > 0 && key >= string(r.Key) && key < string(r.RangeEnd) {
			found.Kvs = append(found.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value)})
		}
	}
	slices.SortFunc(found.Kvs, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	if r.Limit > 0 && int64(len(found.Kvs)) > r.Limit {
		found.Kvs = found.Kvs[:r.Limit]
	}
	return found, nil
}

func (f *fake) Txn(_ context.Context, r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	if f.race != nil {
		f.race()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(r.Compare) != 1 || r.Compare[0].Target != etcdserverpb.Compare_MOD || r.Compare[0].Result != etcdserverpb.Compare_EQUAL ||
		r.Compare[0].GetModRevision() != 0 || len(r.Success) != 1 || len(r.Failure) != 0 {
		return nil, status.Error(codes.Unimplemented, "kine does not know that")
	}
	put := r.Success[0].GetRequestPut()
	if _, exists := f.keys[string(put.Key)]; exists {
		return &etcdserverpb.TxnResponse{Header: &etcdserverpb.ResponseHeader{}}, nil
	}
	f.keys[string(put.Key)] = string(put.Value)
	return &etcdserverpb.TxnResponse{Header: &etcdserverpb.ResponseHeader{}, Succeeded: true}, nil
}

// serve serves the store on a socket and returns the way to it.
func (f *fake) serve(t *testing.T) Access {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	etcdserverpb.RegisterKVServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return Access{Name: "the fake", Elsewhere: "another fake", Endpoints: []string{"unix://" + socket}}
}

func TestClaim(t *testing.T) {
	const mine, others = "id-of-mine", "id-of-others"
	for _, tc := range []struct {
		name     string
		prefix   string
		keys     map[string]string
		race     func(f *fake)
		founding bool
		refused  string // all words of the refusal that matter
	}{
		{name: "an empty store is taken", founding: true},
		{name: "what kine makes at its start is nobody's", keys: map[string]string{"/registry/health": "{}"}, founding: true},
		{name: "an earlier attempt at founding", keys: map[string]string{"/registry/k0s/cluster-id": mine}, founding: true},
		{name: "an earlier attempt, and more", keys: map[string]string{"/registry/k0s/cluster-id": mine, "/registry/pods/a": ""}, founding: true},
		{name: "another's store", keys: map[string]string{"/registry/k0s/cluster-id": others}, founding: true,
			refused: "the fake is the store of cluster " + others + ", and this host is to found another one, " + mine + ": choose another fake, or"},
		{name: "somebody's keys", keys: map[string]string{"/registry/health": "", "/registry/pods/a": ""}, founding: true,
			refused: "the fake is not empty (there is the key /registry/pods/a), and nothing tells whose it is: choose another fake"},
		{name: "somebody was faster", founding: true, race: func(f *fake) { f.keys["/registry/k0s/cluster-id"] = others },
			refused: "is the store of cluster " + others},
		{name: "another prefix is another store", prefix: "two", founding: true,
			keys: map[string]string{"/one/k0s/cluster-id": others, "/one/pods/a": "", "/registry/pods/a": "", "/twofold/pods/a": ""}},
		{name: "the same prefix, written in another way", prefix: "/one/", founding: true, keys: map[string]string{"/one/k0s/cluster-id": others},
			refused: "is the store of cluster " + others},
		{name: "a member", keys: map[string]string{"/registry/k0s/cluster-id": mine, "/registry/pods/a": ""}},
		{name: "a member whose store is empty", refused: "this host is a member of cluster " + mine + ", but the fake does not hold that cluster"},
		{name: "a member whose store lost the id", keys: map[string]string{"/registry/pods/a": ""}, refused: "there is no key /registry/k0s/cluster-id"},
		{name: "a member with another's store", keys: map[string]string{"/registry/k0s/cluster-id": others},
			refused: "this host is a member of cluster " + mine + ", but the fake is the store of cluster " + others},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{keys: tc.keys}
			if f.keys == nil {
				f.keys = map[string]string{}
			}
			before := len(f.keys)
			if tc.race != nil {
				f.race = func() { tc.race(f) }
			}
			a := f.serve(t)
			a.Prefix = tc.prefix
			for range 2 { // the second time nothing is new
				err := a.Claim(t.Context(), mine, tc.founding)
				var refusal *Refusal
				if errors.As(err, &refusal) != (tc.refused != "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
					t.Fatalf("got %v", err)
				}
			}
			if owner := f.keys[a.idKey()]; tc.refused == "" && owner != mine {
				t.Errorf("the store belongs to %q", owner)
			}
			if tc.refused != "" && tc.race == nil && len(f.keys) != before {
				t.Errorf("a refused store has changed: %v", f.keys)
			}
		})
	}
}

func TestTroubleIsNoRefusal(t *testing.T) {
	f := &fake{err: status.Error(codes.Internal, "the disk is gone")}
	a := f.serve(t)
	err := a.Claim(t.Context(), "x", true)
	if errors.As(err, new(*Refusal)) || err == nil || err.Error() != "asking the fake whose it is: the disk is gone" {
		t.Errorf("got %v", err)
	}
	if err := a.Ask(t.Context()); err == nil || err.Error() != a.Endpoints[0]+": the disk is gone" {
		t.Errorf("got %v", err)
	}
}

func TestAsk(t *testing.T) {
	f := &fake{keys: map[string]string{}}
	good := f.serve(t).Endpoints[0]
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // it accepts, and says nothing
	silent, refusing := "http://"+listener.Addr().String(), "http://127.0.0.1:1"
	for _, tc := range []struct {
		name      string
		endpoints []string
		want      []string
	}{
		{"one", []string{good}, nil},
		{"one of several", []string{refusing, silent, good}, nil},
		{"none", []string{refusing, silent}, []string{refusing + ": ", "connection refused", "; ", silent + ": no answer in time"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := Access{Endpoints: tc.endpoints}.Ask(ctx)
		cancel()
		if (err == nil) != (tc.want == nil) {
			t.Errorf("%s: got %v", tc.name, err)
		}
		for _, want := range tc.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", tc.name, err, want)
			}
		}
	}
	if err := (Access{Endpoints: []string{"https://127.0.0.1:1"}, CAFile: "/no/such/ca"}).Ask(t.Context()); err == nil || !strings.Contains(err.Error(), "/no/such/ca") {
		t.Errorf("got %v", err)
	}
}
