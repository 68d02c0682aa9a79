package policy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// known is a pod as an informer keeps it: only what matters, for there may be tens of thousands.
type known struct {
	metav1.ObjectMeta // to be found by; its fields are those that an informer needs
	pod               Pod
	// mirrors is what the kubelet calls the pod of a file, which the API has under another UID.
	mirrors string
}

// trimPod is a transformation of an informer of pods.
func trimPod(object any) (any, error) {
	if p, ok := object.(*corev1.Pod); ok {
		return newKnown(p), nil
	}
	return object, nil
}

func newKnown(p *corev1.Pod) *known {
	k := &known{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion},
		pod: Pod{
			Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: p.Spec.NodeName, Labels: p.Labels, HostNetwork: p.Spec.HostNetwork,
			Done:    p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
			Created: p.CreationTimestamp.Time,
		},
		mirrors: p.Annotations[corev1.MirrorPodAnnotationKey],
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			k.pod.Addresses = append(k.pod.Addresses, a.Unmap())
		}
	}
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, port := range c.Ports {
			if protocol, ok := protocolNumber(&port.Protocol); ok && port.Name != "" {
				k.pod.Ports = append(k.pod.Ports, Port{port.Name, protocol, uint16(port.ContainerPort)})
			}
		}
	}
	return k
}

// is tells whether it is the pod that a claim is for: the kubelet calls the pod of a file by another UID.
func (k *known) is(c Claim) bool {
	return k.Namespace == c.Namespace && k.Name == c.Name && (k.UID == c.UID || k.mirrors != "" && k.mirrors == string(c.UID))
}

// trimNamespace and trimPolicy leave out what nobody here reads.
func trimNamespace(object any) (any, error) {
	if n, ok := object.(*corev1.Namespace); ok {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, Labels: n.Labels,
		}}, nil
	}
	return object, nil
}

func trimPolicy(object any) (any, error) {
	if p, ok := object.(*networkingv1.NetworkPolicy); ok {
		p.ManagedFields, p.Annotations = nil, nil
	}
	return object, nil
}
