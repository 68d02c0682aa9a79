package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"k0s.io/k0s/internal/network/kuberouter/tablewatch"
)

// Options say what a Controller works on.
type Options struct {
	Client kubernetes.Interface
	// NodeName is this node's.
	NodeName string
	Guard    Guard
	// Dir is for the socket that the CNI plugin calls at, and to keep the pods' addresses in. It is only for
	// root, and best lost at a reboot, as the pods are.
	Dir string
	// CutFlows ends established connections that a change of policies no longer allows. Without it they go
	// on until they end.
	CutFlows bool
	Log      *slog.Logger
}

// Controller keeps the kernel in step with the API, and lets pods start when it is.
type Controller struct {
	Options
	kernel *Kernel
	// senders is nil where the kernel cannot filter on bridges.
	senders *Kernel
	claims  *claims
	gate    net.Listener
	// changed is sent to when something may have to be done.
	changed chan struct{}
	// foreign: somebody else has changed the table.
	foreign atomic.Bool

	mu       sync.Mutex
	applied  *Model          // nil before the first time
	honoured map[string]bool // containers whose claims the applied model knows
	// idle: no pod ran when this began. What the API server first tells of this node's pods is from before a
	// reboot then: past are their addresses, which others have by now.
	idle     bool
	past     map[types.UID][]netip.Addr
	waiting  map[chan struct{}]Claim
	fetched  map[types.UID]*known // what was asked for because the API server had not told of it
	snapshot Snapshot
}

// Snapshot is how things stand.
type Snapshot struct {
	// Policies of the whole cluster.
	Policies int `json:"policies"`
	// Pods of this node that are in the table, and how many of them policies select for each direction.
	Pods            int `json:"pods"`
	IsolatedIngress int `json:"isolatedIngress"`
	IsolatedEgress  int `json:"isolatedEgress"`
	// Syncs is how often the table was compared with the API, Restored how often after somebody else had changed it.
	Syncs    int `json:"syncs"`
	Restored int `json:"restored"`
	// LastSync is when the table last was as it should be; LastDuration how long that took.
	LastSync     time.Time     `json:"lastSync,omitzero"`
	LastDuration time.Duration `json:"lastDurationNanoseconds"`
	// Error of the last attempt; empty if all is well.
	Error string `json:"error,omitempty"`
}

// New makes the table, if it is not there and no pod runs, and answers CNI plugins from then on: they wait for Run.
func New(o Options) (*Controller, error) {
	kept, err := loadClaims(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("the addresses of pods: %w", err)
	}
	c := &Controller{Options: o, kernel: NewKernel(o.Guard), claims: kept, changed: make(chan struct{}, 1), waiting: map[chan struct{}]Claim{}, fetched: map[types.UID]*known{}}
	running, err := havePods(o.Guard.Bridge)
	if err != nil {
		return nil, err
	}
	c.idle = !running
	if err := c.kernel.Prepare(); err != nil {
		return nil, fmt.Errorf("making the table of network policies: %w", err)
	}
	c.senders = NewSenders()
	if err := c.senders.Prepare(); err != nil {
		c.Log.Warn("A pod that may send raw frames (CAP_NET_RAW) can pretend to be another pod of this node, whatever network policies say: "+
			"the kernel cannot filter on bridges (CONFIG_NF_TABLES_BRIDGE)", "error", err)
		c.senders = nil
	}
	if err := c.listen(); err != nil {
		return nil, fmt.Errorf("listening for CNI plugins: %w", err)
	}
	return c, nil
}

// Close ends what New has begun. The tables stay.
func (c *Controller) Close() error {
	c.kernel.Close()
	if c.senders != nil {
		c.senders.Close()
	}
	return c.gate.Close()
}

// owns tells whether a netlink connection is ours, by its port. It may be called at any time.
func (c *Controller) owns(port uint32) bool {
	return c.kernel.owns(port) || c.senders != nil && c.senders.owns(port)
}

// Snapshot tells how things stand.
func (c *Controller) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot
}

func (c *Controller) notify() {
	select {
	case c.changed <- struct{}{}:
	default: // it will be seen with the change before
	}
}

// costly is what a sync takes in a cluster of thousands of pods.
const costly = 50 * time.Millisecond

// Run enforces policies until ctx ends. The table stays then: it goes on being in force while k0s restarts.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	failed, stopWatch, err := tablewatch.WatchOthers(tableName, c.owns, func() { c.foreign.Store(true); c.notify() })
	if err != nil {
		return err
	}
	defer stopWatch()
	c.forget() // nobody has watched until now
	if err := bridgeIsFiltered(); err != nil {
		c.Log.Warn("Network policies are not in force between pods of this node", "error", err)
	}
	core, networking := c.Client.CoreV1(), c.Client.NetworkingV1()
	all := fields.Everything()
	here := fields.OneTermEqualSelector("spec.nodeName", c.NodeName)
	elsewhere := fields.OneTermNotEqualSelector("spec.nodeName", c.NodeName)
	namespaces := c.watch(ctx, &group, listWatch(core.Namespaces(), all), &corev1.Namespace{}, trimNamespace)
	policies := c.watch(ctx, &group, listWatch(networking.NetworkPolicies(metav1.NamespaceAll), all), &networkingv1.NetworkPolicy{}, trimPolicy)
	own := c.watch(ctx, &group, listWatch(core.Pods(metav1.NamespaceAll), here), &corev1.Pod{}, trimPod)
	// The other nodes' pods matter only to policies.
	var others *watched
	for {
		begin := time.Now()
		var retry <-chan time.Time
		if namespaces.synced() && policies.synced() && own.synced() {
			list := objectsOf[*networkingv1.NetworkPolicy](policies.store)
			if len(list) == 0 && others != nil {
				others.stop()
				others = nil
			} else if len(list) > 0 && others == nil {
				others = c.watch(ctx, &group, listWatch(core.Pods(metav1.NamespaceAll), elsewhere), &corev1.Pod{}, trimPod)
			}
			if others == nil || others.synced() {
				if err := c.sync(list, objectsOf[*corev1.Namespace](namespaces.store), own, others); err != nil {
					c.Log.Error("Network policies are not in force as they should be", "error", err)
					retry = time.After(time.Second)
				}
			}
		}
		// In a large cluster something always changes: half of one CPU is for all of it together.
		if took := time.Since(begin); took > costly {
			select {
			case <-time.After(min(took, time.Second)):
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-c.changed:
		case <-retry:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// bridgeIsFiltered tells whether packets between pods of this node pass the table.
func bridgeIsFiltered() error {
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-filter-vlan-tagged"} {
		path := "/proc/sys/net/bridge/" + name
		value, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%w: load the kernel module br_netfilter", err)
		}
		if strings.TrimSpace(string(value)) != "1" {
			return fmt.Errorf("%s must be 1", path)
		}
	}
	return nil
}

// watched is what an informer knows.
type watched struct {
	store cache.Store
	done  <-chan struct{}
	stop  context.CancelFunc
}

func (w *watched) synced() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// listWatch is what an informer asks for the objects that a client knows.
func listWatch[L runtime.Object](client interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}, which fields.Selector) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = which.String()
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = which.String()
			return client.Watch(ctx, o)
		},
	}
}

// watch starts an informer.
func (c *Controller) watch(ctx context.Context, group *sync.WaitGroup, source *cache.ListWatch, of runtime.Object, trim cache.TransformFunc) *watched {
	ctx, cancel := context.WithCancel(ctx)
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(source, c.Client),
		ObjectType:    of, Transform: trim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { c.notify() }, DeleteFunc: func(any) { c.notify() },
			UpdateFunc: func(before, after any) {
				if matters(before, after) {
					c.notify()
				}
			},
		},
	})
	group.Go(func() { informer.RunWithContext(ctx) })
	synced := informer.HasSyncedChecker().Done()
	group.Go(func() {
		select {
		case <-synced:
			c.notify()
		case <-ctx.Done():
		}
	})
	return &watched{store: store, done: synced, stop: cancel}
}

// matters tells whether two versions of an object differ in what is read here.
func matters(before, after any) bool {
	switch old := before.(type) {
	case *known:
		now, ok := after.(*known)
		return !ok || old.mirrors != now.mirrors || !reflect.DeepEqual(old.pod, now.pod)
	case *corev1.Namespace:
		now, ok := after.(*corev1.Namespace)
		return !ok || !maps.Equal(old.Labels, now.Labels)
	case *networkingv1.NetworkPolicy:
		now, ok := after.(*networkingv1.NetworkPolicy)
		return !ok || !reflect.DeepEqual(old.Spec, now.Spec)
	}
	return true
}

func objectsOf[T any](store cache.Store) []T {
	var list []T
	for _, object := range store.List() {
		if o, ok := object.(T); ok {
			list = append(list, o)
		}
	}
	return list
}

// sync makes the table what the objects say.
func (c *Controller) sync(policies []*networkingv1.NetworkPolicy, namespaces []*corev1.Namespace, own, others *watched) error {
	begin := time.Now()
	o := Objects{Node: c.NodeName, Families: c.Guard.Families, Policies: policies, Namespaces: map[string]map[string]string{}}
	for _, n := range namespaces {
		o.Namespaces[n.Name] = n.Labels
	}
	pods, honoured := c.ownPods(objectsOf[*known](own.store))
	o.Pods = pods
	if others != nil {
		for _, k := range objectsOf[*known](others.store) {
			o.Pods = append(o.Pods, &k.pod)
		}
	}
	model, compileErr := Compile(o)
	restored := c.foreign.Swap(false)
	if restored {
		c.Log.Warn("Somebody else has changed the nftables tables of the network policies: restoring them", "tables", Table+", "+SenderTable)
		c.forget()
	}
	err := c.kernel.Apply(model)
	if err == nil && c.senders != nil {
		err = c.senders.Apply(senderModel(c.claims.list()))
	}
	if err == nil {
		err = forgetFlows(c.starting(honoured), o.Families)
	}
	if err == nil && c.CutFlows && c.applied != nil {
		var count uint
		if count, err = cutFlows(model, o.Families); count > 0 {
			c.Log.Info("Cut flows that policies no longer allow", "flows", count)
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot.Syncs++
	if restored {
		c.snapshot.Restored++
	}
	if compileErr != nil && compileErr.Error() != c.snapshot.Error {
		c.Log.Warn("There are network policies that cannot be understood: they open less than they seem to", "error", compileErr)
	}
	c.snapshot.Error = ""
	if err := errors.Join(compileErr, err); err != nil {
		c.snapshot.Error = err.Error()
	}
	if err != nil {
		return err
	}
	c.applied, c.honoured = model, honoured
	c.snapshot.LastSync, c.snapshot.LastDuration = time.Now(), time.Since(begin)
	c.snapshot.Policies = len(policies)
	c.snapshot.Pods, c.snapshot.IsolatedIngress, c.snapshot.IsolatedEgress = 0, 0, 0
	for _, p := range pods {
		if len(p.Addresses) == 0 || p.HostNetwork {
			continue
		}
		a := Element{Address: p.Addresses[0]}
		f := FamilyOf(a.Address)
		for name, count := range map[string]*int{
			podsSet(f): &c.snapshot.Pods, isolatedSet(Ingress, f): &c.snapshot.IsolatedIngress, isolatedSet(Egress, f): &c.snapshot.IsolatedEgress,
		} {
			if set := model.Sets[name]; set != nil && set.has(a) {
				*count++
			}
		}
	}
	for done, claim := range c.waiting {
		if c.inForce(claim) {
			close(done)
			delete(c.waiting, done)
		}
	}
	return nil
}

// forget has all of the tables written by the next sync.
func (c *Controller) forget() {
	c.kernel.Forget()
	if c.senders != nil {
		c.senders.Forget()
	}
}

// starting are the addresses of the pods that wait for nothing more.
func (c *Controller) starting(honoured map[string]bool) map[netip.Addr]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	addresses := map[netip.Addr]bool{}
	for _, claim := range c.waiting {
		if honoured[claim.Container] {
			for _, a := range claim.Addresses {
				addresses[a] = true
			}
		}
	}
	return addresses
}

// ownPods are the pods of this node, with the addresses that the CNI plugins gave them, and the containers
// whose claims that were. Claims of pods that are gone from here are forgotten.
func (c *Controller) ownPods(list []*known) ([]*Pod, map[string]bool) {
	held := c.claims.list()
	claims := map[string]Claim{}
	for _, claim := range held {
		claims[claim.Namespace+"/"+claim.Name+"/"+string(claim.UID)] = claim
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, k := range c.fetched {
		told := slices.ContainsFunc(list, func(other *known) bool { return other.UID == k.UID })
		claimed := slices.ContainsFunc(held, k.is)
		if told || !claimed {
			delete(c.fetched, uid)
			continue
		}
		list = append(list, k)
	}
	if c.idle && c.past == nil {
		c.past = map[types.UID][]netip.Addr{}
		for _, k := range list {
			c.past[k.UID] = k.pod.Addresses
		}
	}
	honoured := map[string]bool{}
	var pods []*Pod
	for _, k := range list {
		pod := k.pod
		for _, uid := range []string{string(k.UID), k.mirrors} {
			id := k.Namespace + "/" + k.Name + "/" + uid
			if claim, there := claims[id]; there {
				pod.Addresses, pod.Claimed = claim.Addresses, true
				honoured[claim.Container] = true
				delete(claims, id)
			}
		}
		if !pod.Claimed && slices.Equal(pod.Addresses, c.past[k.UID]) {
			pod.Addresses = nil
		}
		pods = append(pods, &pod)
	}
	for _, claim := range c.waiting {
		delete(claims, claim.Namespace+"/"+claim.Name+"/"+string(claim.UID)) // its pod is yet to be told of
	}
	for _, claim := range claims {
		if _, err := net.InterfaceByName(claim.Port); err == nil {
			continue // its processes may not have ended yet: it is still held to its own addresses
		}
		if err := c.claims.remove(claim.Container); err != nil {
			c.Log.Warn("Cannot forget the addresses of a pod that is gone", "pod", claim.Namespace+"/"+claim.Name, "error", err)
		}
	}
	return pods, honoured
}

// inForce tells whether the rules for a claim are in the kernel. c.mu is held.
func (c *Controller) inForce(claim Claim) bool {
	if !c.honoured[claim.Container] {
		return false
	}
	for _, a := range claim.Addresses {
		pods := c.applied.Sets[podsSet(FamilyOf(a))]
		if pods != nil && !pods.has(Element{Address: a}) {
			return false
		}
	}
	return true
}
