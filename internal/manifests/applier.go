package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/klog/v2"
)

const (
	// fieldManager owns the fields of everything applied here.
	fieldManager = "k0s"
	// requestTimeout bounds one request, so that one that is never answered
	// becomes an error which is tried again.
	requestTimeout = 30 * time.Second
	// establishTimeout bounds the wait for one CRD to be served.
	establishTimeout = 5 * time.Second
)

var (
	crdKind       = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
	namespaceKind = schema.GroupKind{Kind: "Namespace"}
)

// Applier makes the cluster agree with stacks. It may be used by several
// goroutines at once, for different stacks.
//
// It remembers which objects belong to which stack: it takes stock of the
// whole cluster once, by StackLabel, and keeps count itself from then on. An
// Applier is therefore made anew whenever another process may have applied
// stacks in between.
type Applier struct {
	dynamic   dynamic.Interface
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterfaceWithContext
	mapper    *restmapper.DeferredDiscoveryRESTMapper
	log       *slog.Logger

	stock sync.Mutex // held while taking stock
	taken bool       // guarded by stock

	mu    sync.Mutex
	owned map[string]map[objectID]bool // by stack
}

// objectID names an object, whatever version it is written in.
type objectID struct {
	kind            schema.GroupKind
	namespace, name string
}

func (id objectID) String() string { return describe(id.kind.Kind, id.namespace, id.name) }

func describe(kind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "/" + name
	}
	return kind + " " + name
}

// NewApplier returns an Applier for the cluster config leads to. The limits
// config puts on requests per second do not count here: a stack is applied as
// fast as the API server answers. Warnings of the API server go to log.
func NewApplier(config *rest.Config, log *slog.Logger) (*Applier, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.RateLimiter = nil
	config.UserAgent = "k0s-manifests"
	config.WarningHandlerWithContext = &serverWarnings{log: log, seen: map[string]bool{}}

	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("manifests: API client: %w", err)
	}
	dyn, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("manifests: API client: %w", err)
	}
	mdata, err := metadata.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("manifests: API client: %w", err)
	}
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("manifests: API client: %w", err)
	}
	return &Applier{
		dynamic:   dyn,
		metadata:  mdata,
		discovery: disco,
		mapper:    restmapper.NewDeferredDiscoveryRESTMapperWithContext(memory.NewMemCacheClientWithContext(disco)),
		log:       log,
		owned:     map[string]map[objectID]bool{},
	}, nil
}

// Apply makes the cluster agree with stack: every object is applied server
// side, and when all were, objects which carry the label of this stack but are
// not in it are deleted. One object failing does not keep others from being
// applied; the returned error joins what was wrong with each.
//
// CustomResourceDefinitions and Namespaces go first (the former awaited for up
// to 5 s each until they are served), then what is cluster-scoped, then what is
// namespaced, and last what routes API requests to pods of the same stack.
// Within these groups the order is that of the stack. A namespaced object that
// names no namespace goes to "default".
func (a *Applier) Apply(ctx context.Context, stack Stack) error {
	// client-go would also log, in its own way, what is returned from here.
	ctx = klog.NewContext(ctx, klog.Logger{})
	run := &application{Applier: a, stack: stack.Name, wanted: map[objectID]string{}}

	var definitions, others []Object
	for _, object := range stack.Objects {
		switch object.GroupVersionKind().GroupKind() {
		case crdKind, namespaceKind:
			definitions = append(definitions, object)
		default:
			others = append(others, object)
		}
	}
	run.apply(ctx, definitions)
	run.awaitDefinitions(ctx)
	run.apply(ctx, others)

	if len(run.errs) > 0 {
		return errors.Join(run.errs...)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return a.prune(ctx, stack.Name, run.wanted)
}

// application is one go at applying one stack.
type application struct {
	*Applier
	stack       string
	wanted      map[objectID]string // object → where it was written
	unserved    []definition        // CRDs applied but not yet served
	rediscover  bool                // the API server was asked anew what it serves
	unreachable bool                // it did not answer; the rest is not tried
	errs        []error
}

type definition struct {
	object Object
	live   *unstructured.Unstructured
}

// step is one object on its way to the API server.
type step struct {
	object  Object
	mapping *meta.RESTMapping
}

func (r *application) apply(ctx context.Context, objects []Object) {
	var steps []step
	for _, object := range objects {
		if r.unreachable || ctx.Err() != nil {
			return
		}
		mapping, err := r.mappingOf(ctx, object)
		if err != nil {
			r.fail(object, err)
			continue
		}
		steps = append(steps, step{object, mapping})
	}
	slices.SortStableFunc(steps, func(x, y step) int { return cmp.Compare(rank(x.mapping), rank(y.mapping)) })
	for _, s := range steps {
		if r.unreachable || ctx.Err() != nil {
			return
		}
		r.applyOne(ctx, s)
	}
}

// rank orders kinds for being applied; objects are pruned in reverse.
func rank(m *meta.RESTMapping) int {
	kind := m.GroupVersionKind.GroupKind()
	switch {
	case kind == crdKind:
		return 0
	case kind == namespaceKind:
		return 1
	case kind.Group == "apiregistration.k8s.io",
		kind.Group == "admissionregistration.k8s.io" && strings.HasSuffix(kind.Kind, "WebhookConfiguration"):
		// From now on the API server depends on pods this stack creates.
		return 4
	case m.Scope.Name() == meta.RESTScopeNameRoot:
		return 2
	default:
		return 3
	}
}

// mappingOf returns how object is addressed. A kind unknown so far makes it
// ask the API server anew, once in an application.
func (r *application) mappingOf(ctx context.Context, object Object) (*meta.RESTMapping, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	gvk := object.GroupVersionKind()
	mapping, err := r.mapper.RESTMappingWithContext(ctx, gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) && !r.rediscover {
		r.rediscover = true
		r.mapper.ResetWithContext(ctx)
		mapping, err = r.mapper.RESTMappingWithContext(ctx, gvk.GroupKind(), gvk.Version)
	}
	return mapping, err
}

func (r *application) applyOne(ctx context.Context, s step) {
	object, err := prepared(s.object, r.stack)
	if err != nil {
		r.fail(s.object, err)
		return
	}
	var client dynamic.ResourceInterface = r.dynamic.Resource(s.mapping.Resource)
	if s.mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if object.GetNamespace() == "" {
			object.SetNamespace(metav1.NamespaceDefault)
		}
		client = r.dynamic.Resource(s.mapping.Resource).Namespace(object.GetNamespace())
	} else {
		object.SetNamespace("")
	}
	id := objectID{object.GroupVersionKind().GroupKind(), object.GetNamespace(), object.GetName()}
	if first, twice := r.wanted[id]; twice {
		r.fail(s.object, fmt.Errorf("is defined twice in this stack, first in %s: remove one of the two", first))
		return
	}
	r.wanted[id] = s.object.Source

	requestCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	live, err := client.Apply(requestCtx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		r.fail(s.object, err)
		return
	}
	r.own(r.stack, id)
	if live.GetDeletionTimestamp() != nil {
		r.fail(s.object, errors.New("is being deleted; it will be applied again until it is there to stay"))
		return
	}
	if id.kind == crdKind && !established(live) {
		r.unserved = append(r.unserved, definition{s.object, live})
	}
}

// prepared returns a copy of object as it is sent: labelled, and without what
// only the API server may write (present in manifests saved from a cluster).
func prepared(object Object, stack string) (*unstructured.Unstructured, error) {
	name, _, err := unstructured.NestedString(object.Object, "metadata", "name")
	if err != nil {
		return nil, fmt.Errorf("metadata.name must be a string, so quote names like \"n\", \"on\" and \"1\": %w", err)
	}
	if name == "" {
		return nil, errors.New("has no metadata.name: give it one (generateName cannot be applied again and again)")
	}
	out := object.DeepCopy()
	for _, field := range []string{
		"managedFields", "resourceVersion", "uid", "generation", "selfLink",
		"creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
	} {
		unstructured.RemoveNestedField(out.Object, "metadata", field)
	}
	labels, _, err := unstructured.NestedStringMap(out.Object, "metadata", "labels")
	if err != nil {
		return nil, fmt.Errorf("metadata.labels must map strings to strings, so quote values like \"true\" and \"1\": %w", err)
	}
	if labels == nil {
		labels = map[string]string{}
	}
	labels[StackLabel] = stack
	out.SetLabels(labels)
	return out, nil
}

// awaitDefinitions waits until the CRDs just applied are served.
func (r *application) awaitDefinitions(ctx context.Context) {
	for _, d := range r.unserved {
		if ctx.Err() != nil {
			return
		}
		if err := r.awaitEstablished(ctx, d.live); err != nil {
			r.fail(d.object, err)
		}
	}
}

func (a *Applier) awaitEstablished(ctx context.Context, crd *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, establishTimeout)
	defer cancel()
	mapping, err := a.mapper.RESTMappingWithContext(ctx, crdKind)
	if err != nil {
		return err
	}
	watcher, err := a.dynamic.Resource(mapping.Resource).Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", crd.GetName()).String(),
		ResourceVersion: crd.GetResourceVersion(),
	})
	if err != nil {
		return fmt.Errorf("watching for it to be served: %w", err)
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		live, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("watching for it to be served: %w", apierrors.FromObject(event.Object))
		}
		if established(live) {
			return nil
		}
		if status, message := condition(live, "NamesAccepted"); status == "False" {
			return fmt.Errorf("its names are refused, another definition has them: %s", message)
		}
	}
	return fmt.Errorf("was stored but is not served after %s", establishTimeout)
}

func established(crd *unstructured.Unstructured) bool {
	status, _ := condition(crd, "Established")
	return status == "True"
}

func condition(object *unstructured.Unstructured, kind string) (status, message string) {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == kind {
			status, _ = c["status"].(string)
			message, _ = c["message"].(string)
		}
	}
	return status, message
}

// fail records that object could not be applied, and what to do about it.
func (r *application) fail(object Object, err error) {
	what := describe(object.GetKind(), object.GetNamespace(), object.GetName())
	where := ""
	if object.Source != "" {
		where = " (" + object.Source + ")"
	}
	if unanswered(err) {
		r.unreachable = true
		r.errs = append(r.errs, fmt.Errorf("stack %s: %s%s: no answer from the API server, so the rest of the stack was not tried: %w", r.stack, what, where, err))
		return
	}
	r.errs = append(r.errs, fmt.Errorf("stack %s: %s%s: %w%s", r.stack, what, where, err, remedy(object, err)))
}

// unanswered tells a failed connection from a refusal by the API server.
func unanswered(err error) bool {
	var status apierrors.APIStatus
	var transport interface{ Timeout() bool } // net.Error, url.Error, context.DeadlineExceeded
	return !errors.As(err, &status) && errors.As(err, &transport)
}

// remedy says what the user can do about err, as the end of a sentence.
func remedy(object Object, err error) string {
	gvk := object.GroupVersionKind()
	switch {
	case meta.IsNoMatchError(err):
		return fmt.Sprintf(": correct apiVersion %s and kind %s, or add the CustomResourceDefinition that defines them", gvk.GroupVersion(), gvk.Kind)
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces"):
		return ": add the Namespace to this stack or create it"
	case apierrors.IsInvalid(err) && strings.Contains(err.Error(), "immutable"):
		flag := ""
		if object.GetNamespace() != "" {
			flag = " -n " + object.GetNamespace()
		}
		return fmt.Sprintf(": to have it made anew, run: k0s kubectl delete %s %s%s",
			strings.ToLower(strings.TrimSuffix(gvk.Kind+"."+gvk.Group, ".")), object.GetName(), flag)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), strings.Contains(err.Error(), "field not declared in schema"):
		return ": correct the manifest"
	}
	return ""
}

func (a *Applier) own(stack string, id objectID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.owned[stack] == nil {
		a.owned[stack] = map[objectID]bool{}
	}
	a.owned[stack][id] = true
}

func (a *Applier) disown(stack string, id objectID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.owned[stack], id)
}

// prune deletes the objects of stack which are not wanted.
func (a *Applier) prune(ctx context.Context, stack string, wanted map[objectID]string) error {
	if err := a.takeStock(ctx); err != nil {
		return fmt.Errorf("stack %s: looking for objects to prune: %w", stack, err)
	}
	a.mu.Lock()
	var surplus []objectID
	for id := range a.owned[stack] {
		if _, ok := wanted[id]; !ok {
			surplus = append(surplus, id)
		}
	}
	a.mu.Unlock()

	type leftover struct {
		objectID
		mapping *meta.RESTMapping
	}
	var leftovers []leftover
	var errs []error
	for _, id := range surplus {
		mapping, err := a.mapper.RESTMappingWithContext(ctx, id.kind)
		switch {
		case meta.IsNoMatchError(err): // its definition is gone, and it with it
			a.disown(stack, id)
		case err != nil:
			errs = append(errs, fmt.Errorf("stack %s: pruning %s: %w", stack, id, err))
		default:
			leftovers = append(leftovers, leftover{id, mapping})
		}
	}
	slices.SortFunc(leftovers, func(x, y leftover) int {
		return cmp.Or(cmp.Compare(rank(y.mapping), rank(x.mapping)), cmp.Compare(x.String(), y.String()))
	})
	for _, l := range leftovers {
		deleted, err := a.deleteOne(ctx, stack, l.objectID, l.mapping)
		if err != nil {
			errs = append(errs, fmt.Errorf("stack %s: pruning %s, which is no longer part of it: %w", stack, l.objectID, err))
			continue
		}
		a.disown(stack, l.objectID)
		if deleted {
			a.log.Info("pruned an object that is no longer part of its stack", "stack", stack, "object", l.String())
		}
	}
	return errors.Join(errs...)
}

// deleteOne deletes an object unless a look at it shows that it is no longer
// ours to delete: gone, moved to another stack, or owned by another object.
func (a *Applier) deleteOne(ctx context.Context, stack string, id objectID, mapping *meta.RESTMapping) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var client metadata.ResourceInterface = a.metadata.Resource(mapping.Resource)
	if id.namespace != "" {
		client = a.metadata.Resource(mapping.Resource).Namespace(id.namespace)
	}
	live, err := client.Get(ctx, id.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if live.Labels[StackLabel] != stack || len(live.OwnerReferences) > 0 {
		return false, nil
	}
	background := metav1.DeletePropagationBackground
	err = client.Delete(ctx, id.name, metav1.DeleteOptions{
		Preconditions:     metav1.NewUIDPreconditions(string(live.UID)),
		PropagationPolicy: &background,
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// takeStock finds out which objects carry StackLabel, whoever applied them.
// Kinds that cannot be listed are logged, and looked at again next time.
func (a *Applier) takeStock(ctx context.Context) error {
	a.stock.Lock()
	defer a.stock.Unlock()
	if a.taken {
		return nil
	}
	start := time.Now()
	lists, err := discovery.ServerPreferredResourcesWithContext(ctx, a.discovery)
	if err != nil && (len(lists) == 0 || !discovery.IsGroupDiscoveryFailedError(err)) {
		return err
	}
	// Groups that failed are served by pods which do not answer; what they
	// keep is not deployed as a manifest.
	complete := true
	kinds := 0
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, resource := range list.APIResources {
			if !prunable(resource) {
				continue
			}
			kinds++
			if err := a.countKind(ctx, version, resource); err != nil {
				if unanswered(err) || ctx.Err() != nil {
					return err
				}
				complete = false
				a.log.Warn("cannot look for objects to prune", "group", version.Group, "kind", resource.Kind, "error", err)
			}
		}
	}
	a.taken = complete
	a.log.Debug("took stock of applied objects", "kinds", kinds, "complete", complete, "took", time.Since(start))
	return nil
}

// prunable says whether objects of a kind may be in a stack. Endpoints and
// EndpointSlices copy the labels of their Service, so a label proves nothing.
func prunable(resource metav1.APIResource) bool {
	switch resource.Name {
	case "endpoints", "endpointslices", "events":
		return false
	}
	return !strings.Contains(resource.Name, "/") &&
		slices.Contains(resource.Verbs, "list") && slices.Contains(resource.Verbs, "delete")
}

func (a *Applier) countKind(ctx context.Context, version schema.GroupVersion, resource metav1.APIResource) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := a.metadata.Resource(version.WithResource(resource.Name)).List(ctx, metav1.ListOptions{
		LabelSelector: StackLabel,
		// From the API server's cache: cheap, and everything is looked at
		// once more before it is deleted.
		ResourceVersion: "0",
	})
	if apierrors.IsNotFound(err) { // served no longer
		return nil
	}
	if err != nil {
		return err
	}
	for _, item := range list.Items {
		kind := schema.GroupKind{Group: version.Group, Kind: resource.Kind}
		a.own(item.Labels[StackLabel], objectID{kind, item.Namespace, item.Name})
	}
	return nil
}

// serverWarnings logs each warning of the API server once.
type serverWarnings struct {
	log  *slog.Logger
	mu   sync.Mutex
	seen map[string]bool
}

func (w *serverWarnings) HandleWarningHeaderWithContext(_ context.Context, code int, _ string, text string) {
	if code != 299 || text == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.seen[text] {
		w.seen[text] = true
		w.log.Warn("the API server warns about a manifest", "warning", text)
	}
}
