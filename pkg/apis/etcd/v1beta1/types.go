// Package v1beta1 is the API etcd.k0sproject.io/v1beta1: a controller's member of etcd as an object of the
// cluster. The objects are there on clusters whose etcd is run by k0s.
package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of the API, and Resource, by which objects are asked for.
var (
	GroupVersion = schema.GroupVersion{Group: "etcd.k0sproject.io", Version: "v1beta1"}
	Resource     = GroupVersion.WithResource("etcdmembers")
)

// AddToScheme makes the types known to a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &EtcdMember{}, &EtcdMemberList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// EtcdMember is a member of etcd. Its name is that of the controller. k0s makes it, and keeps it when the
// member has left; it is cluster scoped.
type EtcdMember struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdMemberSpec   `json:"spec,omitempty"`
	Status EtcdMemberStatus `json:"status,omitempty"`
}

// EtcdMemberSpec is what the member is told.
type EtcdMemberSpec struct {
	// Leave asks the member to leave etcd for good. It is of this member only: when a controller of the same
	// name joins later, it is false again. Default: false.
	Leave bool `json:"leave,omitempty"`
}

// EtcdMemberStatus is what k0s knows of the member.
type EtcdMemberStatus struct {
	// PeerAddress is where its peers reach it.
	PeerAddress string `json:"peerAddress,omitempty"`
	// MemberID is its id in hexadecimal digits.
	MemberID string `json:"memberID,omitempty"`
	// ReconcileStatus tells how leaving went: Success, Failed, or empty while there is nothing to tell.
	ReconcileStatus ReconcileStatus `json:"reconcileStatus,omitempty"`
	// Message explains it.
	Message string `json:"message,omitempty"`
	// Conditions are Joined and Leaving.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ReconcileStatus tells how leaving went.
type ReconcileStatus string

// Values of ReconcileStatus.
const (
	ReconcileSuccess ReconcileStatus = "Success"
	ReconcileFailed  ReconcileStatus = "Failed"
)

// Types of conditions.
const (
	// Joined is true while the member has a vote.
	Joined = "Joined"
	// Leaving is true once it is this member's turn to leave.
	Leaving = "Leaving"
)

// Reasons of the condition Joined.
const (
	// Voter: the member has a vote.
	Voter = "Voter"
	// Learner: the member has none yet.
	Learner = "Learner"
	// Left: there is no such member any more.
	Left = "Left"
)

// EtcdMemberList is a list of them.
type EtcdMemberList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdMember `json:"items"`
}

// DeepCopy returns a copy that shares nothing with m.
func (m *EtcdMember) DeepCopy() *EtcdMember {
	if m == nil {
		return nil
	}
	c := *m
	m.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Status.Conditions = nil
	for i := range m.Status.Conditions {
		c.Status.Conditions = append(c.Status.Conditions, *m.Status.Conditions[i].DeepCopy())
	}
	return &c
}

// DeepCopyObject makes it a runtime.Object.
func (m *EtcdMember) DeepCopyObject() runtime.Object {
	if m == nil {
		return nil
	}
	return m.DeepCopy()
}

// DeepCopyObject makes it a runtime.Object.
func (l *EtcdMemberList) DeepCopyObject() runtime.Object {
	if l == nil {
		return nil
	}
	c := *l
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = nil
	for i := range l.Items {
		c.Items = append(c.Items, *l.Items[i].DeepCopy())
	}
	return &c
}
