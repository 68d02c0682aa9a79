package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/workerconfig"
)

// Settings follows what the controllers tell the workers of a profile.
type Settings struct {
	// Profile of this worker.
	Profile string
	Layout  host.Layout
	// ClusterID is the cluster that this worker belongs to; empty until it has joined.
	ClusterID string
	// Changed is called with the first settings, and with all that differ from the ones before.
	Changed func(*workerconfig.Settings) error
	Log     *slog.Logger

	followed string // resource version of the last ConfigMap
}

// again is how often settings are tried that could not be followed.
const again = time.Minute

// copyFile is where a worker keeps its settings to start by.
func (s *Settings) copyFile() string { return s.Layout.DataDir + "/worker-config.json" }

// Known are the settings of the last time; nil if there are none.
func (s *Settings) Known() (*workerconfig.Settings, error) { return workerconfig.Load(s.copyFile()) }

// Component is started once there are settings: those of the API, or while it is silent, those of the
// last time.
func (s *Settings) Component() component.Component {
	first := make(chan error, 1)
	log := s.Log.With("component", "worker-config")
	background := component.Background("worker-config", func(ctx context.Context) error { return s.follow(ctx, first) }, log)
	start := background.Start
	background.Start = func(ctx context.Context) error {
		if known, _ := s.Known(); known != nil { // what is wrong with them was said before
			if err := s.accept(known); err != nil {
				return err
			}
			first = nil // nobody waits
		}
		return start(ctx)
	}
	background.Ready = func(ctx context.Context) error {
		if first == nil {
			return nil
		}
		component.Report(ctx, fmt.Errorf("the controllers have not said what workers of profile %s need (ConfigMap %s/%s)",
			s.Profile, workerconfig.Namespace, workerconfig.Name(s.Profile)))
		select {
		case err := <-first:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return background
}

// accept checks and hands on settings.
func (s *Settings) accept(settings *workerconfig.Settings) error {
	if err := s.check(settings); err != nil {
		return err
	}
	s.ClusterID = settings.ClusterID
	return s.Changed(settings)
}

// check refuses those of another cluster.
func (s *Settings) check(settings *workerconfig.Settings) error {
	if s.ClusterID != "" && s.ClusterID != settings.ClusterID {
		return fmt.Errorf("this worker belongs to cluster %s, but the API is that of cluster %s: run `k0s reset` before it joins another one",
			s.ClusterID, settings.ClusterID)
	}
	return nil
}

// follow watches the ConfigMap. The first result is sent to first, if somebody waits for it.
func (s *Settings) follow(ctx context.Context, first chan<- error) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.Layout.KubeletConf())
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	seen := func(object any) {
		m, ok := object.(*corev1.ConfigMap)
		if !ok {
			return
		}
		err := s.received(m)
		if err != nil {
			s.Log.Error("Cannot follow the settings of the controllers", "error", err)
		}
		select {
		case first <- err:
		default: // somebody was told before, or nobody waits
		}
	}
	own := fields.OneTermEqualSelector(metav1.ObjectNameField, workerconfig.Name(s.Profile)).String()
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(cache.NewFilteredListWatchFromClient(
			client.CoreV1().RESTClient(), "configmaps", workerconfig.Namespace,
			func(lo *metav1.ListOptions) { lo.FieldSelector = own }), client),
		ObjectType:   &corev1.ConfigMap{},
		ResyncPeriod: again,
		Handler:      cache.ResourceEventHandlerFuncs{AddFunc: seen, UpdateFunc: func(_, object any) { seen(object) }},
	})
	informer.RunWithContext(ctx)
	return nil
}

// received keeps and hands on what the API says, once. What cannot be kept is not followed: a worker that starts
// its components anew, or itself, goes by what is kept.
func (s *Settings) received(m *corev1.ConfigMap) error {
	if m.ResourceVersion == s.followed {
		return nil
	}
	settings, err := workerconfig.FromConfigMap(m)
	if err != nil {
		return err
	}
	if err := s.check(settings); err != nil {
		return err
	}
	if err := settings.Save(s.copyFile()); err != nil {
		return fmt.Errorf("cannot keep them, trying again every %s: %w", again, err)
	}
	if err := s.accept(settings); err != nil {
		return err
	}
	s.followed = m.ResourceVersion
	return nil
}
