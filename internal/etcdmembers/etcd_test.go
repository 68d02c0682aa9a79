package etcdmembers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"k0s.io/k0s/internal/pki"
)

// fakeEtcd has etcd's rules for members, and the records.
type fakeEtcd struct {
	mu       sync.Mutex
	members  []*etcdserverpb.Member
	nextID   uint64
	fail     error           // of the next change of members
	notReady map[uint64]bool // learners that have not caught up
	dead     map[string]bool // peer URLs that do not answer
	leader   uint64          // self is 1
	stuck    map[uint64]bool // cannot become the leader
	ignores  bool            // the next change of members
	recs     map[uint64]record
	changed  chan struct{}
	calls    []string
	lists    int // how often the members were asked for
}

func newFake(members ...*etcdserverpb.Member) *fakeEtcd {
	return &fakeEtcd{
		members: members, nextID: 0x100, notReady: map[uint64]bool{}, dead: map[string]bool{}, leader: 1, stuck: map[uint64]bool{},
		recs: map[uint64]record{}, changed: make(chan struct{}, 1),
	}
}

func (f *fakeEtcd) open() *Members {
	return &Members{
		cluster: f, records: f,
		leader: func(context.Context) (uint64, uint64, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return 1, f.leader, nil
		},
		move: f.move,
		alive: func(_ context.Context, peerURL string, _ uint64) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.dead[peerURL] {
				return errors.New("connection refused")
			}
			return nil
		},
		close: func() error { return nil },
	}
}

func (f *fakeEtcd) header() *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{ClusterId: 1}
}

func (f *fakeEtcd) copies() []*etcdserverpb.Member {
	var all []*etcdserverpb.Member
	for _, m := range f.members {
		c := member(m.ID, m.Name, m.PeerURLs[0], m.IsLearner)
		c.ClientURLs = m.ClientURLs
		all = append(all, c)
	}
	return all
}

func (f *fakeEtcd) MemberList(context.Context, ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	return &clientv3.MemberListResponse{Header: f.header(), Members: f.copies()}, nil
}

func (f *fakeEtcd) change(call string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(call, args...))
	err := f.fail
	f.fail = nil
	return err
}

func (f *fakeEtcd) MemberAddAsLearner(_ context.Context, urls []string) (*clientv3.MemberAddResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.change("add %s", urls[0]); err != nil {
		return nil, err
	}
	for _, m := range f.members {
		if slices.Contains(m.PeerURLs, urls[0]) {
			return nil, rpctypes.ErrPeerURLExist
		}
		if m.IsLearner {
			return nil, rpctypes.ErrTooManyLearners
		}
	}
	f.nextID++
	f.members = append(f.members, member(f.nextID, "", urls[0], true))
	return &clientv3.MemberAddResponse{Header: f.header(), Member: member(f.nextID, "", urls[0], true), Members: f.copies()}, nil
}

func (f *fakeEtcd) move(ctx context.Context, to uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("move %x", to))
	if f.stuck[to] {
		<-ctx.Done()
		return rpctypes.ErrTimeout
	}
	f.leader = to
	return nil
}

func (f *fakeEtcd) MemberRemove(ctx context.Context, id uint64) (*clientv3.MemberRemoveResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.change("remove %x", id); err != nil {
		return nil, err
	}
	if f.ignores {
		f.ignores = false
		<-ctx.Done()
		return nil, rpctypes.ErrTimeout
	}
	before := len(f.members)
	f.members = slices.DeleteFunc(f.members, func(m *etcdserverpb.Member) bool { return m.ID == id })
	if len(f.members) == before {
		return nil, rpctypes.ErrMemberNotFound
	}
	return &clientv3.MemberRemoveResponse{}, nil
}

func (f *fakeEtcd) MemberPromote(_ context.Context, id uint64) (*clientv3.MemberPromoteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.change("promote %x", id); err != nil {
		return nil, err
	}
	for _, m := range f.members {
		switch {
		case m.ID != id:
		case !m.IsLearner:
			return nil, rpctypes.ErrMemberNotLearner
		case f.notReady[id]:
			return nil, rpctypes.ErrMemberLearnerNotReady
		default:
			m.IsLearner = false
			return &clientv3.MemberPromoteResponse{}, nil
		}
	}
	return nil, rpctypes.ErrMemberNotFound
}

func (f *fakeEtcd) MemberAdd(context.Context, []string) (*clientv3.MemberAddResponse, error) {
	return nil, errors.New("nobody may get a vote at once")
}

func (f *fakeEtcd) MemberUpdate(context.Context, uint64, []string) (*clientv3.MemberUpdateResponse, error) {
	return nil, errors.New("not expected")
}

func (f *fakeEtcd) all(context.Context) (map[uint64]record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.recs), nil
}

func (f *fakeEtcd) put(_ context.Context, id uint64, r record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recs[id] = r
	f.notify()
	return nil
}

func (f *fakeEtcd) delete(_ context.Context, id uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.recs[id]; ok {
		delete(f.recs, id)
		f.notify()
	}
	return nil
}

func (f *fakeEtcd) notify() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *fakeEtcd) watch(context.Context) <-chan struct{} { return f.changed }

func member(id uint64, name, peerURL string, learner bool) *etcdserverpb.Member {
	return &etcdserverpb.Member{ID: id, Name: name, PeerURLs: []string{peerURL}, IsLearner: learner}
}

const (
	url0 = "https://192.0.2.10:2380"
	url1 = "https://192.0.2.11:2380"
	url2 = "https://192.0.2.12:2380"
)

func TestAddLearner(t *testing.T) {
	voter := member(1, "c0", url0, false)
	newcomer := Learner{Name: "c1", PeerURL: url1}
	for _, tc := range []struct {
		name     string
		others   []*etcdserverpb.Member
		records  map[uint64]record
		dead     bool // all of others
		learner  Learner
		fail     error
		conflict string // part of a *Conflict
		busy     string // part of an ErrBusy
		id       uint64
		cluster  string // joined by blanks; default: c0 and c1
		calls    string
	}{
		{name: "first time", learner: newcomer, id: 0x101, calls: "add " + url1},
		{name: "asked again before it has started", others: []*etcdserverpb.Member{member(2, "", url1, true)}, records: map[uint64]record{2: {"c1"}}, learner: newcomer, id: 2},
		{name: "added, but the record was not written", others: []*etcdserverpb.Member{member(2, "", url1, true)}, learner: newcomer, id: 2},
		{name: "runs and asks all the same", others: []*etcdserverpb.Member{member(2, "c1", url1, true)}, learner: newcomer, id: 2},
		{name: "has its data, is down", others: []*etcdserverpb.Member{member(2, "c1", url1, true)}, dead: true, learner: Learner{"c1", url1, 2}, id: 2},
		{name: "was promoted meanwhile", others: []*etcdserverpb.Member{member(2, "c1", url1, false)}, dead: true, learner: Learner{"c1", url1, 2}, id: 2},
		{name: "had begun, lost its data", others: []*etcdserverpb.Member{member(2, "c1", url1, true)}, dead: true, learner: newcomer, id: 0x101, calls: "remove 2, add " + url1},
		{name: "has data of a member that was removed", learner: Learner{"c1", url1, 7}, id: 0x101, calls: "add " + url1},
		{name: "moved before it ever started", others: []*etcdserverpb.Member{member(2, "", url2, true)}, records: map[uint64]record{2: {"c1"}}, learner: newcomer, id: 0x101, calls: "remove 2, add " + url1},
		{name: "renamed before it ever started", others: []*etcdserverpb.Member{member(2, "", url1, true)}, records: map[uint64]record{2: {"old"}}, learner: newcomer, id: 0x101, calls: "remove 2, add " + url1},
		{name: "a voter that never started", others: []*etcdserverpb.Member{member(2, "", url1, false)}, records: map[uint64]record{2: {"old"}}, learner: newcomer, id: 0x101, calls: "remove 2, add " + url1},
		{name: "moved while it had begun", others: []*etcdserverpb.Member{member(2, "c1", url2, true)}, dead: true, learner: newcomer, id: 0x101, calls: "remove 2, add " + url1},
		{name: "two of a name join at once", others: []*etcdserverpb.Member{member(2, "c1", url2, true)}, learner: newcomer, conflict: "another host named c1 is joining right now, from " + url2},
		{name: "two of an address join at once", others: []*etcdserverpb.Member{member(2, "c2", url1, true)}, learner: newcomer, conflict: "the host c2 is joining right now with the peer address " + url1},
		{name: "a member that lost its disk", others: []*etcdserverpb.Member{member(2, "c1", url1, false)}, learner: newcomer, conflict: "this host does not have its data: if that controller, or its data, is gone for good, remove the member with `k0s etcd leave --peer-address 192.0.2.11`"},
		{name: "a member's name", others: []*etcdserverpb.Member{member(2, "c1", url2, false)}, learner: newcomer, conflict: "etcd has a member named c1 already (2), with the peer URL " + url2},
		{name: "a member's name, with wrong data", others: []*etcdserverpb.Member{member(2, "c1", url2, false)}, learner: Learner{"c1", url1, 2}, conflict: "etcd has a member named c1 already"},
		{name: "a member's address", others: []*etcdserverpb.Member{member(2, "c2", url1, false)}, learner: newcomer, conflict: url1 + " is the peer URL of etcd's member c2 (2) already"},
		{name: "another joins", others: []*etcdserverpb.Member{member(2, "c2", url2, true)}, learner: newcomer, busy: "another controller is joining", calls: "add " + url1},
		{name: "unhealthy", learner: newcomer, fail: rpctypes.ErrUnhealthy, busy: "its members are not all up", calls: "add " + url1},
		{name: "no leader", learner: newcomer, fail: rpctypes.ErrNoLeader, busy: "no leader", calls: "add " + url1},
		{name: "others have names, or will", others: []*etcdserverpb.Member{member(2, "", url2, false)}, records: map[uint64]record{}, learner: newcomer, id: 0x101,
			cluster: "2=" + url2 + " c0=" + url0 + " c1=" + url1, calls: "add " + url1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(append([]*etcdserverpb.Member{voter}, tc.others...)...)
			f.fail = tc.fail
			maps.Copy(f.recs, tc.records)
			for _, other := range tc.others {
				f.dead[other.PeerURLs[0]] = tc.dead
			}
			got, err := f.open().AddLearner(context.Background(), tc.learner)
			var conflict *Conflict
			switch {
			case tc.conflict != "":
				if !errors.As(err, &conflict) || !strings.Contains(err.Error(), tc.conflict) {
					t.Fatalf("got %v", err)
				}
			case tc.busy != "":
				if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), tc.busy) {
					t.Fatalf("got %v", err)
				}
			case err != nil:
				t.Fatal(err)
			default:
				want := tc.cluster
				if want == "" {
					want = "c0=" + url0 + " c1=" + url1
				}
				if got.MemberID != tc.id || strings.Join(got.InitialCluster, " ") != want {
					t.Errorf("got %+v", got)
				}
				again, err := f.open().AddLearner(context.Background(), tc.learner)
				if !f.dead[url1] && (err != nil || again.MemberID != got.MemberID) {
					t.Errorf("asked again: %+v, %v", again, err)
				}
			}
			if calls := strings.Join(f.calls, ", "); calls != tc.calls {
				t.Errorf("called %s", calls)
			}
		})
	}
}

// Many controllers that join at once all get in, one after the other.
func TestJoinAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(member(1, "c0", url0, false))
		ctx, cancel := context.WithCancel(context.Background())
		promoted := make(chan error, 1)
		go func() { promoted <- f.open().Promote(ctx, time.Minute, discard()) }()
		var joined sync.WaitGroup
		for i := range 4 {
			joined.Go(func() {
				l := Learner{Name: fmt.Sprintf("c%d", i+1), PeerURL: fmt.Sprintf("https://192.0.2.%d:2380", i+11)}
				for {
					got, err := f.open().AddLearner(ctx, l)
					if err == nil {
						time.Sleep(time.Second) // it starts
						f.start(got.MemberID, l.Name)
						return
					}
					if !errors.Is(err, ErrBusy) {
						t.Error(err)
						return
					}
					time.Sleep(time.Second)
				}
			})
		}
		joined.Wait()
		time.Sleep(10 * time.Second)
		f.mu.Lock()
		if len(f.members) != 5 || len(f.recs) != 0 {
			t.Errorf("got %v, %v", f.members, f.recs)
		}
		for _, m := range f.members {
			if m.IsLearner || m.Name == "" {
				t.Errorf("%s has not become a voter", m)
			}
		}
		f.mu.Unlock()
		cancel()
		if err := <-promoted; err != nil {
			t.Error(err)
		}
	})
}

func (f *fakeEtcd) start(id uint64, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if m.ID == id {
			m.Name = name
		}
	}
}

func TestPromote(t *testing.T) {
	const deadline = 10 * time.Minute
	for _, tc := range []struct {
		name    string
		learner *etcdserverpb.Member
		set     func(*fakeEtcd)
		later   func(*fakeEtcd) // after 9 minutes
		calls   string          // after 11 minutes
	}{
		{name: "ready", learner: member(2, "c1", url1, true), calls: "promote 2"},
		{name: "never started", learner: member(2, "", url1, true), set: func(f *fakeEtcd) { f.dead[url1] = true }, calls: "remove 2"},
		{name: "has no name yet", learner: member(2, "", url1, true), later: func(f *fakeEtcd) { f.start(2, "c1") }, calls: "promote 2"},
		{name: "died after it had caught up", learner: member(2, "c1", url1, true), set: func(f *fakeEtcd) { f.dead[url1] = true }, calls: "remove 2"},
		{name: "comes back in time", learner: member(2, "c1", url1, true), set: func(f *fakeEtcd) { f.dead[url1] = true },
			later: func(f *fakeEtcd) { f.mu.Lock(); f.dead[url1] = false; f.mu.Unlock() }, calls: "promote 2"},
		{name: "still gets its data", learner: withoutClients(member(2, "c1", url1, true)), calls: ""},
		{name: "not our turn", learner: member(2, "", url1, true), set: func(f *fakeEtcd) { f.leader = 2 }, calls: ""},
		{name: "leads since a moment", learner: member(2, "", url1, true), set: func(f *fakeEtcd) { f.leader = 2 },
			later: func(f *fakeEtcd) { f.mu.Lock(); f.leader = 1; f.mu.Unlock() }, calls: ""},
		{name: "a voter", learner: member(2, "c1", url1, false), set: func(f *fakeEtcd) { f.dead[url1] = true }, calls: ""},
		{name: "a voter that never started", learner: member(2, "", url1, false), set: func(f *fakeEtcd) { f.dead[url1] = true }, calls: ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(member(1, "c0", url0, false), tc.learner)
				if tc.set != nil {
					tc.set(f)
				}
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- f.open().Promote(ctx, deadline, discard()) }()
				time.Sleep(9 * time.Minute)
				if tc.later != nil {
					tc.later(f)
				}
				time.Sleep(2 * time.Minute)
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if calls := strings.Join(f.calls, ", "); calls != tc.calls {
					t.Errorf("called %s", calls)
				}
			})
		})
	}
}

// A learner that needs long is asked for less and less often; one that catches up gets its vote at once.
func TestPromoteWhenCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(member(1, "c0", url0, false), member(2, "c1", url1, true))
		f.notReady[2] = true
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.open().Promote(ctx, time.Minute, discard()) }()
		time.Sleep(time.Hour) // it lives: no deadline
		f.mu.Lock()
		if n := len(f.calls); n < 700 || n > 800 || slices.ContainsFunc(f.calls, func(c string) bool { return c != "promote 2" }) {
			t.Errorf("%d calls", n)
		}
		f.notReady[2] = false
		f.mu.Unlock()
		time.Sleep(maxTick)
		synctest.Wait()
		f.mu.Lock()
		if f.members[1].IsLearner {
			t.Error("it is still a learner")
		}
		f.mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Without learners there is next to nothing to do; an announced one is looked after at once.
func TestPromoteIsIdleAndWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(member(1, "c0", url0, false))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.open().Promote(ctx, time.Minute, discard()) }()
		time.Sleep(time.Hour + time.Second)
		f.mu.Lock()
		if f.lists > 61 {
			t.Errorf("asked %d times in an hour", f.lists)
		}
		f.mu.Unlock()
		got, err := f.open().AddLearner(ctx, Learner{Name: "c1", PeerURL: url1})
		if err != nil {
			t.Fatal(err)
		}
		f.start(got.MemberID, "c1")
		begin := time.Now()
		for f.isLearner(got.MemberID) && time.Since(begin) < time.Second {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(begin); took > 2*minTick {
			t.Errorf("took %s", took)
		}
		f.mu.Lock()
		close(f.changed)
		f.mu.Unlock()
		if err := <-done; err == nil {
			t.Error("without a watch it must end, to be started again")
		}
		cancel()
	})
}

func withoutClients(m *etcdserverpb.Member) *etcdserverpb.Member {
	m.ClientURLs = []string{NoClients}
	return m
}

func (f *fakeEtcd) isLearner(id uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.members, func(m *etcdserverpb.Member) bool { return m.ID == id && m.IsLearner })
}

func TestTidy(t *testing.T) {
	f := newFake(member(1, "c0", url0, false), member(2, "c1", url1, false), member(3, "", url2, true))
	f.dead[url2] = true
	f.recs = map[uint64]record{2: {"c1"}, 3: {"c2"}, 4: {"gone"}}
	p := promoter{Members: f.open(), deadline: time.Minute, log: discard(), since: map[uint64]time.Time{}, present: map[uint64]time.Time{}}
	if _, err := p.tend(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(f.recs) != 1 || f.recs[3].Name != "c2" {
		t.Errorf("got %v", f.recs)
	}
}

func TestPeerURL(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":                   "https://192.0.2.1:2380",
		"2001:db8::1":                 "https://[2001:db8::1]:2380",
		"::ffff:192.0.2.1":            "https://192.0.2.1:2380",
		"https://192.0.2.1:2380":      "https://192.0.2.1:2380",
		"https://192.0.2.1":           "https://192.0.2.1:2380",
		"https://[2001:db8::1]:1234/": "https://[2001:db8::1]:1234",
		"c1.example.org":              "https://c1.example.org:2380",
		"":                            "",
		"http://192.0.2.1:2380":       "",
		"https://192.0.2.1:0":         "",
		"https://a@192.0.2.1":         "",
		"https://192.0.2.1/x":         "",
		"192.0.2.1:2380":              "",
		"127.0.0.1":                   "",
		"localhost":                   "",
		"0.0.0.0":                     "",
		"::":                          "",
		"fe80::1%eth0":                "",
		"a,b=c":                       "",
		"c1,c2=https://192.0.2.9:1":   "",
		"unix:///run/x":               "",
	} {
		got, err := PeerURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
}

func TestCanLeave(t *testing.T) {
	const url3 = "https://192.0.2.13:2380"
	for _, tc := range []struct {
		name    string
		members []*etcdserverpb.Member
		dead    []string
		want    string
	}{
		{"alone", nil, nil, "the only member of etcd with a vote"},
		{"beside a learner", []*etcdserverpb.Member{member(2, "c1", url1, true)}, nil, "the only member of etcd with a vote"},
		{"two", []*etcdserverpb.Member{member(2, "c1", url1, false)}, nil, ""},
		{"two, one is down", []*etcdserverpb.Member{member(2, "c1", url1, false)}, []string{url1}, "1 must answer, and c1 does not"},
		{"three", []*etcdserverpb.Member{member(2, "c1", url1, false), member(3, "c2", url2, false)}, nil, ""},
		{"three, one is down", []*etcdserverpb.Member{member(2, "c1", url1, false), member(3, "c2", url2, false)}, []string{url2},
			"of the 2 members of etcd that would stay, 2 must answer, and c2 does not"},
		{"four, one is down", []*etcdserverpb.Member{member(2, "c1", url1, false), member(3, "c2", url2, false), member(4, "c3", url3, false)}, []string{url2}, ""},
		{"a learner is down", []*etcdserverpb.Member{member(2, "c1", url1, false), member(3, "c2", url2, true)}, []string{url2}, ""},
		{"itself does not answer", []*etcdserverpb.Member{member(2, "c1", url1, false)}, []string{url0}, ""},
	} {
		f := newFake(append([]*etcdserverpb.Member{member(1, "c0", url0, false)}, tc.members...)...)
		for _, url := range tc.dead {
			f.dead[url] = true
		}
		m := f.open()
		all, err := m.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := m.CanLeave(t.Context(), all, 1); fmt.Sprint(err) != "<nil>" && tc.want == "" || !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

func TestRemove(t *testing.T) {
	voters := func() []*etcdserverpb.Member {
		return []*etcdserverpb.Member{member(1, "c0", url0, false), member(2, "c1", url1, false), member(3, "c2", url2, false)}
	}
	for _, tc := range []struct {
		name  string
		set   func(*fakeEtcd)
		id    uint64
		calls string
		log   string
	}{
		{name: "follows", set: func(f *fakeEtcd) { f.leader = 3 }, id: 1, calls: "remove 1"},
		{name: "another that follows", id: 2, calls: "remove 2"},
		{name: "no member", id: 7, calls: "remove 7"},
		{name: "nobody leads", set: func(f *fakeEtcd) { f.leader = 0 }, id: 1, calls: "remove 1"},
		{name: "leads", id: 1, calls: "move 2, remove 1", log: "node=c1"},
		{name: "leads a learner, one that never started, one that is down, and one that votes", set: func(f *fakeEtcd) {
			f.members[1].IsLearner = true
			f.members = append(f.members, member(4, "", "https://192.0.2.14:2380", false), member(5, "c4", "https://192.0.2.15:2380", false))
			f.dead[url2] = true
		}, id: 1, calls: "move 5, remove 1", log: "node=c4"},
		{name: "the next one takes over", set: func(f *fakeEtcd) { f.stuck[2] = true }, id: 1, calls: "move 2, move 3, remove 1", log: "node=c2"},
		{name: "nobody takes over", set: func(f *fakeEtcd) { f.stuck[2], f.stuck[3] = true, true }, id: 1, calls: "move 2, move 3, remove 1", log: "writes may fail"},
		{name: "nobody else answers", set: func(f *fakeEtcd) { f.dead[url1], f.dead[url2] = true, true }, id: 1, calls: "remove 1", log: "no other member with a vote answers"},
		{name: "another that leads", set: func(f *fakeEtcd) { f.leader = 2 }, id: 2, calls: "remove 2", log: "`k0s etcd leave` there does"},
		{name: "etcd is not settled", set: func(f *fakeEtcd) { f.fail = rpctypes.ErrUnhealthy }, id: 1, calls: "move 2, remove 1, remove 1", log: "node=c1"},
		{name: "the new leader ignores it", set: func(f *fakeEtcd) { f.ignores = true }, id: 1, calls: "move 2, remove 1, remove 1", log: "node=c1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(voters()...)
				if tc.set != nil {
					tc.set(f)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				var log strings.Builder
				if err := f.open().Remove(ctx, tc.id, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
					t.Error(err)
				}
				if calls := strings.Join(f.calls, ", "); calls != tc.calls {
					t.Errorf("called %s", calls)
				}
				if !strings.Contains(log.String(), tc.log) || tc.log == "" && log.Len() > 0 {
					t.Errorf("logged %s", log.String())
				}
			})
		})
	}
}

// Whatever keeps etcd from removing a member, it is told.
func TestCannotRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fail := range []error{rpctypes.ErrMemberNotEnoughStarted, rpctypes.ErrNoLeader} {
			f := newFake(member(1, "c0", url0, false), member(2, "c1", url1, false))
			f.fail = fail
			if err := f.open().Remove(t.Context(), 2, discard()); !errors.Is(err, fail) {
				t.Errorf("got %v", err)
			}
		}
		f := newFake(member(1, "c0", url0, false), member(2, "c1", url1, false))
		f.ignores = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.open().Remove(ctx, 2, discard()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestAsk(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca, err := pki.EnsureCA(path("ca"), "etcd-ca", time.Hour, pki.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Ensure(pki.Request{Path: path("peer"), CommonName: "peer", Names: []string{"127.0.0.1"}, Server: true, Client: true, Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(path("peer.crt"), path("peer.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	peer := func(status int, body string) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/members" {
				status = http.StatusNotFound
			}
			w.Header().Set("X-Etcd-Cluster-ID", "cdf818194e3a8c32")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	const knows = `[{"id":10501334649042878790,"peerURLs":["https://192.0.2.1:2380"],"name":"c0"},{"id":255,"peerURLs":["https://192.0.2.2:2380"],"isLearner":true}]`
	const down = "https://127.0.0.1:1"
	for _, tc := range []struct {
		name  string
		peers []string
		want  Standing
	}{
		{"known", []string{peer(200, knows)}, Known},
		{"known to one", []string{peer(200, `[{"id":1}]`), down, peer(200, knows)}, Known},
		{"removed", []string{peer(200, `[{"id":1}]`), down}, Removed},
		{"nobody answers", []string{down}, Unknown},
		{"nobody there", nil, Unknown},
		{"not ready", []string{peer(503, knows)}, Unknown},
		{"nonsense", []string{peer(200, "<html>")}, Unknown},
	} {
		var cluster []string
		for i, url := range tc.peers {
			cluster = append(cluster, fmt.Sprintf("c%d=%s", i, url))
		}
		a := Access{CAFile: path("ca.crt"), PeerCertFile: path("peer.crt"), PeerKeyFile: path("peer.key")}
		got, err := Ask(context.Background(), a, cluster, 255)
		if err != nil || got != tc.want {
			t.Errorf("%s: got %s, %v", tc.name, got, err)
		}
	}
	if _, err := Ask(context.Background(), Access{CAFile: path("none.crt"), PeerCertFile: path("peer.crt"), PeerKeyFile: path("peer.key")}, nil, 1); err == nil {
		t.Error("a missing file must be told")
	}
	access := Access{CAFile: path("ca.crt"), PeerCertFile: path("peer.crt"), PeerKeyFile: path("peer.key")}
	client, err := peerClient(access)
	if err != nil {
		t.Fatal(err)
	}
	url := peer(200, knows)
	for _, tc := range []struct {
		name  string
		peers []string
		want  string
	}{
		{"as told", []string{"c0=" + url}, "c0=https://192.0.2.1:2380 c1=https://192.0.2.2:2380"},
		{"one does not know it yet", []string{"c9=" + peer(200, `[{"id":1}]`), "c0=" + url}, "c0=https://192.0.2.1:2380 c1=https://192.0.2.2:2380"},
		{"removed", []string{"c9=" + peer(200, `[{"id":1}]`)}, ""},
		{"nobody answers", []string{"c9=" + down}, ""},
	} {
		got, err := InitialCluster(context.Background(), access, tc.peers, 255, "c1")
		if strings.Join(got, " ") != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("initial cluster, %s: got %q, %v", tc.name, got, err)
		}
	}
	for _, tc := range []struct {
		name, members string
		caughtUp      bool
	}{
		{"has data", `[{"id":1,"clientURLs":["https://127.0.0.1:2379"]},{"id":255,"clientURLs":["` + NoClients + `"]}]`, true},
		{"has none", `[{"id":1,"clientURLs":["https://127.0.0.1:2379"]},{"id":255,"name":"c1"}]`, false},
		{"not among them", `[{"id":1,"clientURLs":["https://127.0.0.1:2379"]}]`, false},
	} {
		if err := CaughtUp(context.Background(), access, peer(200, tc.members), 255); (err == nil) != tc.caughtUp {
			t.Errorf("caught up, %s: %v", tc.name, err)
		}
	}
	for id, ok := range map[uint64]bool{0: true, 0xcdf818194e3a8c32: true, 1: false} {
		if _, err := askPeer(context.Background(), client, url, id); (err == nil) != ok {
			t.Errorf("cluster %x: %v", id, err)
		}
	}
}
