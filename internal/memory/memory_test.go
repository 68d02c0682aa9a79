package memory

import (
	"os"
	"strings"
	"testing"
)

func TestGiveBackKeepsTheProgramRunning(t *testing.T) {
	before := mapped(t)
	if err := dropExecutable(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(t); after >= before {
		t.Errorf("%d KiB of the executable were resident before, %d after", before, after)
	}
	GiveBack()
}

// mapped is how many KiB of the executable this process has mapped and resident, unwritable.
func mapped(t *testing.T) (kib int) {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(smaps)) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.Fields(line)
		if strings.Contains(fields[0], "-") {
			_, _, ours = executableMapping(line, exe)
		}
		if ours && fields[0] == "Rss:" {
			n := 0
			for _, digit := range fields[1] {
				n = n*10 + int(digit-'0')
			}
			kib += n
		}
	}
	return kib
}

func TestExecutableMapping(t *testing.T) {
	const exe = "/usr/bin/k0s"
	for _, tc := range []struct {
		line string
		ok   bool
	}{
		{"00400000-05361000 r-xp 00000000 fe:00 123    /usr/bin/k0s", true},
		{"05361000-0cedc000 r--p 04f61000 fe:00 123    /usr/bin/k0s", true},
		{"0cedc000-0d09f000 rw-p 0cadc000 fe:00 123    /usr/bin/k0s", false},
		{"0d09f000-0f105000 rw-p 00000000 00:00 0 ", false},
		{"7f00000000-7f00001000 r--p 00000000 fe:00 9  /usr/bin/other", false},
	} {
		from, to, ok := executableMapping(tc.line, exe)
		if ok != tc.ok || (ok && from >= to) {
			t.Errorf("%s: %x-%x %v", tc.line, from, to, ok)
		}
	}
}
