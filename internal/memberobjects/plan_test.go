package memberobjects

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/pkg/apis/etcd/v1beta1"
)

func member(id uint64, name string, learner bool) etcdmembers.Member {
	return etcdmembers.Member{ID: id, Name: name, PeerURLs: []string{fmt.Sprintf("https://192.0.2.%d:2380", id)}, Learner: learner}
}

func object(name, id string, leave bool, leaving bool) *v1beta1.EtcdMember {
	o := &v1beta1.EtcdMember{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1beta1.EtcdMemberSpec{Leave: leave}}
	o.Status.MemberID = id
	if leaving {
		set(&o.Status, v1beta1.Leaving, metav1.ConditionTrue, "Asked", "")
	}
	return o
}

// line puts an object in a line, as `kubectl get` does.
func line(o *v1beta1.EtcdMember) string {
	joined := meta.FindStatusCondition(o.Status.Conditions, v1beta1.Joined)
	words := []string{o.Name, o.Status.PeerAddress, o.Status.MemberID, string(joined.Status), joined.Reason}
	if o.Spec.Leave {
		words = append(words, "leave")
	}
	if meta.IsStatusConditionTrue(o.Status.Conditions, v1beta1.Leaving) {
		words = append(words, "leaving")
	}
	return strings.TrimSpace(strings.Join(words, " ") + " " + string(o.Status.ReconcileStatus) + " " + o.Status.Message)
}

func TestPlan(t *testing.T) {
	c0, c1, c2 := member(1, "c0", false), member(2, "c1", false), member(3, "c2", false)
	failed := object("c1", "2", true, true)
	failed.Status.ReconcileStatus, failed.Status.Message = v1beta1.ReconcileFailed, "etcd is not settled"
	for _, tc := range []struct {
		name    string
		members []etcdmembers.Member
		objects []*v1beta1.EtcdMember
		want    []string
		turn    string
		silent  uint64
	}{
		{"nothing yet", []etcdmembers.Member{c0, member(2, "C1", true), member(3, "", true)}, nil,
			[]string{"c0 192.0.2.1 1 True Voter", "c1 192.0.2.2 2 False Learner"}, "", 0},
		{"asked to leave", []etcdmembers.Member{c0, c1, c2}, []*v1beta1.EtcdMember{object("c1", "2", true, false)},
			[]string{"c0 192.0.2.1 1 True Voter", "c1 192.0.2.2 2 True Voter leave leaving", "c2 192.0.2.3 3 True Voter"}, "c1", 0},
		{"one at a time", []etcdmembers.Member{c0, c1, c2}, []*v1beta1.EtcdMember{object("c0", "1", true, false), object("c1", "2", true, true)},
			[]string{"c0 192.0.2.1 1 True Voter leave  waits until c1 has left", "c1 192.0.2.2 2 True Voter leave leaving", "c2 192.0.2.3 3 True Voter"}, "c1", 0},
		{"the silent first", []etcdmembers.Member{c0, c1, c2}, []*v1beta1.EtcdMember{object("c0", "1", true, true), object("c1", "2", true, false)},
			[]string{"c0 192.0.2.1 1 True Voter leave  waits until c1 has left", "c1 192.0.2.2 2 True Voter leave leaving", "c2 192.0.2.3 3 True Voter"}, "c1", 2},
		{"why it failed stays while it tries again", []etcdmembers.Member{c0, c1}, []*v1beta1.EtcdMember{failed},
			[]string{"c0 192.0.2.1 1 True Voter", "c1 192.0.2.2 2 True Voter leave leaving Failed etcd is not settled"}, "c1", 0},
		{"asked no more", []etcdmembers.Member{c0, c1}, []*v1beta1.EtcdMember{object("c1", "2", false, true)},
			[]string{"c0 192.0.2.1 1 True Voter", "c1 192.0.2.2 2 True Voter"}, "", 0},
		{"the last", []etcdmembers.Member{c0}, []*v1beta1.EtcdMember{object("c0", "1", true, false)},
			[]string{"c0 192.0.2.1 1 True Voter leave Failed this is the only member with a vote: without it there is no cluster"}, "", 0},
		{"the last beside a learner", []etcdmembers.Member{c0, member(2, "c1", true)}, []*v1beta1.EtcdMember{object("c0", "1", true, true)},
			[]string{"c0 192.0.2.1 1 True Voter leave Failed this is the only member with a vote: without it there is no cluster", "c1 192.0.2.2 2 False Learner"}, "", 0},
		{"a learner", []etcdmembers.Member{c0, c2, member(2, "c1", true)}, []*v1beta1.EtcdMember{object("c1", "2", true, false)},
			[]string{"c0 192.0.2.1 1 True Voter", "c1 192.0.2.2 2 False Learner leave Failed it is joining, and can leave when it has a vote", "c2 192.0.2.3 3 True Voter"}, "", 0},
		{"has left", []etcdmembers.Member{c0}, []*v1beta1.EtcdMember{object("c1", "2", true, true), object("c2", "3", false, false)},
			[]string{"c0 192.0.2.1 1 True Voter", "c1  2 False Left leave Success", "c2  3 False Left"}, "", 0},
		{"has joined again", []etcdmembers.Member{c0, member(7, "c1", false)}, []*v1beta1.EtcdMember{object("c1", "2", true, false)},
			[]string{"c0 192.0.2.1 1 True Voter", "c1 192.0.2.7 7 True Voter"}, "", 0},
	} {
		objects := map[string]*v1beta1.EtcdMember{}
		for _, o := range tc.objects {
			objects[o.Name] = o
		}
		silent := map[uint64]time.Time{tc.silent: {}}
		want, turn := plan(tc.members, objects, silent)
		var got []string
		for _, name := range slices.Sorted(maps.Keys(want)) {
			got = append(got, line(want[name]))
		}
		if !slices.Equal(got, tc.want) || turn != tc.turn {
			t.Errorf("%s: got %q, turn %q; want %q, turn %q", tc.name, got, turn, tc.want, tc.turn)
		}
		// What is as it should be must not be written again and again.
		again, _ := plan(tc.members, want, silent)
		for name := range want {
			if line(again[name]) != line(want[name]) {
				t.Errorf("%s: then %q", tc.name, line(again[name]))
			}
		}
	}
}

func TestMayLeave(t *testing.T) {
	c1 := member(2, "c1", false)
	for _, tc := range []struct {
		name string
		o    *v1beta1.EtcdMember
		want bool
	}{
		{"no object", nil, false},
		{"not asked", object("c1", "2", false, true), false},
		{"not its turn", object("c1", "2", true, false), false},
		{"another member's", object("c1", "9", true, true), false},
		{"its turn", object("c1", "2", true, true), true},
	} {
		if got := mayLeave(tc.o, c1); got != tc.want {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}
