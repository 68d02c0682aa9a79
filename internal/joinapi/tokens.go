package joinapi

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/cluster-bootstrap/token/util"

	"k0s.io/k0s/pkg/token"
)

// Tokens keeps the cluster's tokens in memory by watching them, so that it costs the API server nothing when
// somebody asks for tokens that do not exist.
type Tokens struct {
	client   kubernetes.Interface
	store    cache.Store
	informer cache.Controller
}

// NewTokens returns Tokens that know nothing before Run.
func NewTokens(client kubernetes.Interface) *Tokens {
	t := &Tokens{client: client}
	secrets := client.CoreV1().Secrets(token.Namespace)
	listWatch := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			token.ForTokens(&o)
			return secrets.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			token.ForTokens(&o)
			return secrets.Watch(ctx, o)
		},
	}
	t.store, t.informer = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(listWatch, client),
		ObjectType:    &corev1.Secret{},
		Handler:       cache.ResourceEventHandlerFuncs{},
	})
	return t
}

// Run watches until ctx ends.
func (t *Tokens) Run(ctx context.Context) { t.informer.RunWithContext(ctx) }

// WaitReady waits until all tokens are known; false when ctx ended before.
func (t *Tokens) WaitReady(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), t.informer.HasSynced)
}

// Known implements TokenSource.
func (t *Tokens) Known(id string) (*corev1.Secret, error) {
	if !t.informer.HasSynced() {
		return nil, errors.New("the API server has not told the tokens yet")
	}
	object, exists, err := t.store.GetByKey(token.Namespace + "/" + util.BootstrapTokenSecretName(id))
	if err != nil || !exists {
		return nil, err
	}
	secret, ok := object.(*corev1.Secret)
	if !ok {
		return nil, nil
	}
	return secret, nil
}

// Current implements TokenSource.
func (t *Tokens) Current(ctx context.Context, id string) (*corev1.Secret, error) {
	secret, err := t.client.CoreV1().Secrets(token.Namespace).Get(ctx, util.BootstrapTokenSecretName(id), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return secret, err
}
