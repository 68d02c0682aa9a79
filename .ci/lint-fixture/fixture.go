// Package fixture breaks the rules that `make verify-lint-rules` wants to see enforced.
// Go itself passes over it, as its folder's name begins with a dot.
package fixture

import (
	"os"
	"time"

	"k8s.io/kubernetes/pkg/util/slice"
)

// Break does what library code must not do.
func Break() {
	time.Sleep(time.Second)
	slice.ContainsString(nil, "", nil)
	os.Exit(1)
}
