// Package flagstest checks command lines in tests.
package flagstest

import (
	"slices"
	"strings"
	"testing"
)

// Check wants all of want to be among args, and none that begins with any of absent.
func Check(t *testing.T, args, want, absent []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(args, w) {
			t.Errorf("missing %s in %q", w, args)
		}
	}
	for _, prefix := range absent {
		if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, prefix) }) {
			t.Errorf("unwanted %s in %q", prefix, args)
		}
	}
}
