// Package memberobjects shows the members of etcd as EtcdMember objects, and has those leave that are asked
// to by theirs.
//
// It runs on every controller. The one whose member leads etcd keeps the objects, and says whose turn it is to
// leave. A controller leaves by itself, so that it has noted that before; one that is gone is taken out by
// the leader.
package memberobjects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/pkg/apis/etcd/v1beta1"
)

// Options of Run.
type Options struct {
	// Config reaches the API server on this host.
	Config *rest.Config
	// Members are etcd's.
	Members Members
	// Name of this controller's member.
	Name string
	// Leave takes this controller's member, one of all, out of etcd. There is nothing left to do then.
	Leave func(ctx context.Context, all []etcdmembers.Member, id uint64) error
	// WasRemoved tells whether the others have taken this controller's member out, when etcd does not answer.
	// There is nothing left to do then.
	WasRemoved func(ctx context.Context) bool
	// Note is told who all are, of whom this controller's member has the id self.
	Note func(all []etcdmembers.Member, self uint64) error
	Log  *slog.Logger
}

// Members is what is asked of *etcdmembers.Members.
type Members interface {
	List(ctx context.Context) ([]etcdmembers.Member, error)
	Leads(ctx context.Context) (bool, error)
	Alive(ctx context.Context, member etcdmembers.Member) bool
	Remove(ctx context.Context, id uint64, log *slog.Logger) error
	Changes(ctx context.Context) <-chan struct{}
}

const (
	// resync is how often the members are asked for: etcd does not tell when they change. While one leaves,
	// it is settle.
	resync, settle = 10 * time.Second, 2 * time.Second
	// leaveTimeout bounds an attempt to leave: etcd may have to be settled for 5 s first.
	leaveTimeout = 30 * time.Second
	// lostAfter is how long a member that is asked to leave may be silent before it is taken out.
	lostAfter = time.Minute
)

// Run goes on until ctx ends, or this controller has left.
func Run(ctx context.Context, o Options) error {
	client, err := restClient(o.Config)
	if err != nil {
		return err
	}
	if err := waitForCRD(ctx, o.Config); err != nil || ctx.Err() != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	tell := func(any) {
		select {
		case changed <- struct{}{}:
		default: // it is going to look anyway
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, v1beta1.Resource.Resource, "", fields.Everything()),
		ObjectType:    &v1beta1.EtcdMember{},
		Handler:       cache.ResourceEventHandlerFuncs{AddFunc: tell, UpdateFunc: func(_, obj any) { tell(obj) }, DeleteFunc: tell},
	})
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() { defer close(watching); informer.RunWithContext(ctx) }()
	defer func() { cancel(); <-watching }()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	k := keeper{Options: o, client: client, silent: map[uint64]time.Time{}}
	joining := o.Members.Changes(ctx)
	failing := false
	for {
		objects := map[string]*v1beta1.EtcdMember{}
		for _, obj := range store.List() {
			if object, ok := obj.(*v1beta1.EtcdMember); ok {
				objects[object.Name] = object
			}
		}
		wait, left, err := k.look(ctx, objects)
		switch {
		case left || ctx.Err() != nil:
			return nil
		case err != nil:
			level := slog.LevelDebug // it is tried every few seconds
			if !failing {
				level = slog.LevelWarn
			}
			o.Log.Log(ctx, level, "Cannot look after the EtcdMember objects, trying again", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case _, watching := <-joining:
			if ctx.Err() == nil && !watching {
				return errors.New("the watch for joining controllers has ended")
			}
		case <-time.After(wait):
		}
	}
}

type keeper struct {
	Options
	client rest.Interface
	silent map[uint64]time.Time // since when a member that is to leave has not answered
}

// look leaves if it is this controller's turn, and keeps the objects where etcd's leader is. It says when to
// look again.
func (k *keeper) look(ctx context.Context, objects map[string]*v1beta1.EtcdMember) (wait time.Duration, left bool, err error) {
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := k.Members.List(ask)
	if err != nil {
		return settle, ctx.Err() == nil && k.WasRemoved(ctx), err
	}
	next := settle
	var errs []error // what fails for one must not stop what is done for the others
	self := slices.IndexFunc(all, func(m etcdmembers.Member) bool { return m.Name == k.Name })
	switch {
	case self < 0:
	case mayLeave(objects[objectName(k.Name)], all[self]):
		left, err := k.leave(ctx, all, all[self], objects[objectName(k.Name)])
		if left {
			return 0, true, nil
		}
		errs = append(errs, err)
		next = resync
	default:
		errs = append(errs, k.Note(all, all[self].ID))
	}
	ask, cancel = context.WithTimeout(ctx, 10*time.Second) // leaving may have taken longer
	defer cancel()
	leads, err := k.Members.Leads(ask)
	if err != nil || !leads {
		clear(k.silent)
		return resync, false, errors.Join(append(errs, err)...)
	}
	k.listen(ask, all, objects)
	want, turn := plan(all, objects, k.silent)
	for name, object := range want {
		errs = append(errs, k.put(ask, objects[name], object))
	}
	if turn == "" {
		return resync, false, errors.Join(errs...)
	}
	i := slices.IndexFunc(all, func(m etcdmembers.Member) bool { return objectName(m.Name) == turn })
	return next, false, errors.Join(append(errs, k.removeLost(ctx, all[i]))...)
}

// listen notes since when those that are to leave have been silent.
func (k *keeper) listen(ctx context.Context, all []etcdmembers.Member, objects map[string]*v1beta1.EtcdMember) {
	silent := map[uint64]time.Time{}
	for _, m := range all {
		if m.Name == "" || !shown(m, objects[objectName(m.Name)]).Spec.Leave || k.Members.Alive(ctx, m) {
			continue
		}
		silent[m.ID] = time.Now()
		if since, known := k.silent[m.ID]; known {
			silent[m.ID] = since
		}
	}
	k.silent = silent
}

func (k *keeper) leave(ctx context.Context, all []etcdmembers.Member, self etcdmembers.Member, object *v1beta1.EtcdMember) (left bool, err error) {
	limited, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	k.Log.Info("Leaving the cluster's etcd, because this controller's EtcdMember object says so")
	if err = k.Leave(limited, all, self.ID); err == nil {
		return true, nil
	}
	k.Log.Warn("Cannot leave the cluster's etcd, trying again", "error", err)
	failed := object.DeepCopy()
	failed.Status.ReconcileStatus, failed.Status.Message = v1beta1.ReconcileFailed, err.Error()
	return false, errors.Join(err, k.put(ctx, object, failed))
}

// removeLost takes a member out that does not do it itself.
func (k *keeper) removeLost(ctx context.Context, m etcdmembers.Member) error {
	if since, silent := k.silent[m.ID]; !silent || time.Since(since) < lostAfter {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if err := k.Members.Remove(limited, m.ID, k.Log); err != nil {
		return err
	}
	k.Log.Warn("Removed a member of etcd that was to leave and does not answer", "node", m.Name, "member", memberID(m))
	return nil
}

// put writes what differs.
func (k *keeper) put(ctx context.Context, old, object *v1beta1.EtcdMember) error {
	name, status := object.Name, object.Status
	written := object
	switch {
	case old == nil:
		written = &v1beta1.EtcdMember{}
		if err := k.client.Post().Resource(v1beta1.Resource.Resource).Body(object).Do(ctx).Into(written); err != nil {
			return fmt.Errorf("creating EtcdMember %s: %w", name, err)
		}
	case equality.Semantic.DeepEqual(old, object):
		return nil
	case old.Spec != object.Spec:
		written = &v1beta1.EtcdMember{}
		if err := k.client.Put().Resource(v1beta1.Resource.Resource).Name(name).Body(object).Do(ctx).Into(written); err != nil {
			return fmt.Errorf("updating EtcdMember %s: %w", name, err)
		}
	}
	written.Status = status
	if err := k.client.Put().Resource(v1beta1.Resource.Resource).Name(name).SubResource("status").Body(written).Do(ctx).Error(); err != nil {
		return fmt.Errorf("updating the status of EtcdMember %s: %w", name, err)
	}
	return nil
}

func restClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := v1beta1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = "/apis", &v1beta1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	return rest.RESTClientFor(c)
}

// waitForCRD waits until the API server knows the objects: the deployer of manifests tells it.
func waitForCRD(ctx context.Context, config *rest.Config) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	name := fields.OneTermEqualSelector("metadata.name", v1beta1.Resource.GroupResource().String()).String()
	_, err = watchtools.UntilWithSync(ctx, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, lo metav1.ListOptions) (runtime.Object, error) {
			lo.FieldSelector = name
			return crds.List(ctx, lo)
		},
		WatchFuncWithContext: func(ctx context.Context, lo metav1.ListOptions) (watch.Interface, error) {
			lo.FieldSelector = name
			return crds.Watch(ctx, lo)
		},
	}, &unstructured.Unstructured{}, nil, func(event watch.Event) (bool, error) {
		crd, ok := event.Object.(*unstructured.Unstructured)
		return ok && event.Type != watch.Deleted && established(crd), nil
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("waiting for the EtcdMember objects' definition: %w", err)
	}
	return nil
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		condition, _ := c.(map[string]any)
		return condition["type"] == "Established" && condition["status"] == "True"
	})
}
