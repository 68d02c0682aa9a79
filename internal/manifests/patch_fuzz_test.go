package manifests

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// FuzzPatches: no patch of a k0s.yaml panics, and one that is accepted leaves every object what it is.
func FuzzPatches(f *testing.F) {
	corpus, err := os.ReadFile("testdata/patches.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(corpus)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		seed, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			f.Fatalf("testdata/patches.txt: %q: %v", line, err)
		}
		target, rest, _ := strings.Cut(seed, " ")
		kind, content, _ := strings.Cut(rest, " ")
		f.Add(target, kind, content)
	}
	stacks, err := Render(DefaultParams())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target, kind, content string) {
		config := &v1beta1.ClusterConfig{Spec: coreDNSPatch(v1beta1.PatchType(kind), target, content)}
		patched, err := Patch(stacks, config.Spec)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		for i, stack := range stacks {
			for n, o := range stack.Objects {
				got := patched[i].Objects[n]
				if got.GroupVersionKind() != o.GroupVersionKind() || got.GetName() != o.GetName() || got.GetNamespace() != o.GetNamespace() {
					t.Fatalf("%s has become %s", describeTarget(o.GetKind(), o.GetNamespace(), o.GetName()), describeTarget(got.GetKind(), got.GetNamespace(), got.GetName()))
				}
			}
		}
	})
}
