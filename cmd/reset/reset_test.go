package reset

import (
	"strings"
	"testing"

	"k0s.io/k0s/internal/host"
)

func TestSummaryTellsWhatWasKept(t *testing.T) {
	l := host.Layout{DataDir: "/var/lib/k0s"}
	const all = "as it was before"
	if got := summary(l, false); !strings.Contains(got, all) {
		t.Errorf("got %q", got)
	}
	if got := summary(l, true); strings.Contains(got, all) || !strings.Contains(got, l.DataDir) {
		t.Errorf("with --keep-data: %q", got)
	}
}
