package memberobjects

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/pkg/apis/etcd/v1beta1"
)

// plan says what the objects are to be, and whose turn it is to leave ("": nobody's). One member leaves at a
// time: etcd judges each request by the members of the moment, and two at once could be one too many. Those
// that are silent come first: while they are members, etcd may refuse that others leave.
func plan(all []etcdmembers.Member, objects map[string]*v1beta1.EtcdMember, silent map[uint64]time.Time) (want map[string]*v1beta1.EtcdMember, turn string) {
	want, voters := map[string]*v1beta1.EtcdMember{}, 0
	members := map[string]etcdmembers.Member{}
	for _, m := range all {
		if !m.Learner {
			voters++
		}
		if m.Name == "" {
			continue // it has not started yet
		}
		name := objectName(m.Name)
		members[name] = m
		want[name] = shown(m, objects[name])
	}
	best := -1
	for _, name := range slices.Sorted(maps.Keys(members)) {
		o := want[name]
		if !o.Spec.Leave || members[name].Learner || voters == 1 {
			continue
		}
		rank := 0
		if meta.IsStatusConditionTrue(o.Status.Conditions, v1beta1.Leaving) {
			rank++
		}
		if _, is := silent[members[name].ID]; is {
			rank += 2
		}
		if rank > best {
			turn, best = name, rank
		}
	}
	for name, m := range members {
		o := want[name]
		s := &o.Status
		if name == turn {
			if !meta.IsStatusConditionTrue(s.Conditions, v1beta1.Leaving) {
				set(s, v1beta1.Leaving, metav1.ConditionTrue, "Asked", "it is its turn to leave")
				s.ReconcileStatus, s.Message = "", ""
			}
			continue
		}
		meta.RemoveStatusCondition(&s.Conditions, v1beta1.Leaving)
		s.ReconcileStatus, s.Message = "", ""
		switch {
		case !o.Spec.Leave:
		case m.Learner:
			s.ReconcileStatus, s.Message = v1beta1.ReconcileFailed, "it is joining, and can leave when it has a vote"
		case turn == "":
			s.ReconcileStatus, s.Message = v1beta1.ReconcileFailed, "this is the only member with a vote: without it there is no cluster"
		default:
			s.Message = fmt.Sprintf("waits until %s has left", turn)
		}
	}
	for name, old := range objects {
		if want[name] != nil {
			continue
		}
		o := old.DeepCopy()
		s := &o.Status
		meta.RemoveStatusCondition(&s.Conditions, v1beta1.Leaving)
		set(s, v1beta1.Joined, metav1.ConditionFalse, v1beta1.Left, "etcd has no such member")
		s.ReconcileStatus, s.Message = "", ""
		if o.Spec.Leave {
			s.ReconcileStatus = v1beta1.ReconcileSuccess
		}
		want[name] = o
	}
	return want, turn
}

// shown is the object of a member. What was asked of another member of the same name is not asked of this one.
func shown(m etcdmembers.Member, old *v1beta1.EtcdMember) *v1beta1.EtcdMember {
	o := old.DeepCopy()
	if o == nil {
		o = &v1beta1.EtcdMember{ObjectMeta: metav1.ObjectMeta{Name: objectName(m.Name)}}
	}
	if id := memberID(m); o.Status.MemberID != id {
		if o.Status.MemberID != "" {
			o.Spec.Leave, o.Status = false, v1beta1.EtcdMemberStatus{}
		}
		o.Status.MemberID = id
	}
	o.Status.PeerAddress = ""
	if len(m.PeerURLs) > 0 {
		o.Status.PeerAddress = etcdmembers.PeerAddress(m.PeerURLs[0])
	}
	if m.Learner {
		set(&o.Status, v1beta1.Joined, metav1.ConditionFalse, v1beta1.Learner, "it has no vote yet")
	} else {
		set(&o.Status, v1beta1.Joined, metav1.ConditionTrue, v1beta1.Voter, "it has a vote")
	}
	return o
}

func set(s *v1beta1.EtcdMemberStatus, condition string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: condition, Status: status, Reason: reason, Message: message})
}

// mayLeave tells whether the object says that it is this member's turn to leave.
func mayLeave(o *v1beta1.EtcdMember, m etcdmembers.Member) bool {
	return o != nil && o.Spec.Leave && o.Status.MemberID == memberID(m) && meta.IsStatusConditionTrue(o.Status.Conditions, v1beta1.Leaving)
}

func objectName(member string) string { return strings.ToLower(member) }

func memberID(m etcdmembers.Member) string { return fmt.Sprintf("%x", m.ID) }
