package node

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/workerconfig"
)

// What a worker would not know after a restart, it does not follow, until it can be kept.
func TestReceived(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	followed := 0
	s := &Settings{Layout: host.Layout{DataDir: dir}, Changed: func(*workerconfig.Settings) error { followed++; return nil }}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1"}, Data: map[string]string{"clusterID": "c", "config": "{}"}}
	if err := s.received(m); err == nil || followed != 0 {
		t.Errorf("without a place to keep them: %v, followed %d times", err, followed)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the informer repeats what it has
		if err := s.received(m); err != nil || followed != 1 {
			t.Errorf("with a place to keep them: %v, followed %d times", err, followed)
		}
	}
	if known, err := s.Known(); err != nil || known == nil || known.ClusterID != "c" {
		t.Errorf("kept are %v, %v", known, err)
	}
	other := m.DeepCopy()
	other.ResourceVersion, other.Data["clusterID"] = "2", "other"
	if err := s.received(other); err == nil || followed != 1 {
		t.Errorf("of another cluster: %v, followed %d times", err, followed)
	}
	if known, err := s.Known(); err != nil || known.ClusterID != "c" {
		t.Errorf("after those of another cluster, kept are %v, %v", known, err)
	}
}
