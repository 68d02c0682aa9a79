package applet

import (
	"path/filepath"
	"slices"
	"testing"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// TestExamples: the programs accept the files in docs/examples, and know the feature gate that the
// documentation names.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d examples, %v", len(files), err)
	}
	for _, file := range files {
		if _, err := v1beta1.Load(file, nil, Programs{}); err != nil {
			t.Error(err)
		}
	}
	for _, f := range v1beta1.Fields() {
		if example := f.Tag.Get("example"); f.Path == "spec.featureGates[].name" && !slices.Contains(Programs{}.Features(""), example) {
			t.Errorf("%s: Kubernetes has no feature %s", f.Path, example)
		}
	}
}
