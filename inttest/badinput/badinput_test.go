// Package badinput proves that k0s says in one clear sentence what is wrong with what it was
// given, and ends.
package badinput

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
	"k0s.io/k0s/inttest/testimage"
)

// limit is how long k0s may take to find out.
const limit = 15 * time.Second

// longest is the longest sentence that still is one.
const longest = 500

func TestBadInput(t *testing.T) {
	// On real disk and in two hosts, as storage is that moves from one machine to another.
	shared := t.TempDir()
	network := testhost.NewNetwork(t)
	host, other := network.Host(t, "badinput", shared), network.Host(t, "other", shared)
	for _, h := range network.Hosts() {
		if err := cluster.Install(h); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		// prepare makes the bad input; it may be nil.
		prepare func(t *testing.T, h *testhost.Host)
		// command is what to run; without a slash in its first word, arguments of k0s.
		command string
		// said is what the sentence must contain. Letters' case does not matter.
		said []string
	}{
		{"NotRoot", nil, "/usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups /usr/local/bin/k0s controller --single", []string{"root"}},
		{"PortInUse", takePort, "controller --single", []string{"6443", "in use"}},
		{"NoConfig", nil, "controller --single --config /etc/there/is/none.yaml", []string{"/etc/there/is/none.yaml", "no such file"}},
		{"ConfigIsNoYAML", file("/tmp/bad.yaml", "spec: {\n"), "controller --single --config /tmp/bad.yaml", []string{"/tmp/bad.yaml:1: not valid YAML"}},
		{"UnknownField", file("/tmp/unknown.yaml", "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  netwrok:\n    provider: kuberouter\n"),
			"controller --single --config /tmp/unknown.yaml", []string{"/tmp/unknown.yaml", "netwrok"}},
		{"WrongType", file("/tmp/type.yaml", "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  api:\n    port: many\n"),
			"controller --single --config /tmp/type.yaml", []string{"/tmp/type.yaml", "port"}},
		{"BadValue", file("/tmp/value.yaml", "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  network:\n    podCIDR: 10.244.0.0/99\n"),
			"controller --single --config /tmp/value.yaml", []string{"/tmp/value.yaml", "podCIDR", "10.244.0.0/99"}},
		{"DiskFull", fullDisk, "controller --single --data-dir /mnt/full/k0s", []string{"/mnt/full/k0s", "no space left"}},
		{"CorruptArchive", corrupt, "/opt/corrupt/k0s controller --single", []string{"corrupt"}},
		{"UnknownFlag", nil, "controller --sinlge", []string{"--sinlge"}},
		{"UnknownCommand", nil, "contoller", []string{"contoller"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.prepare != nil {
				test.prepare(t, host)
			}
			refuses(t, host, test.command, test.said)
			nothingRuns(t, host)
		})
	}
	t.Run("DataDirInUse", func(t *testing.T) { dataDirInUse(t, host, other, filepath.Join(shared, "k0s")) })
}

// refuses runs a command that must fail with one sentence.
func refuses(t *testing.T, h *testhost.Host, command string, said []string) {
	t.Helper()
	args := strings.Fields(command)
	if !strings.Contains(args[0], "/") {
		args = append([]string{cluster.Program}, args...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begin := time.Now()
	_, err := h.Output(ctx, args...)
	took := time.Since(begin)
	failed := new(testhost.CommandError)
	switch {
	case ctx.Err() != nil:
		t.Fatalf("after %v it had not ended: %v", limit, err)
	case err == nil:
		t.Fatalf("it ended with exit code 0")
	case !errors.As(err, &failed):
		t.Fatal(err)
	}
	var sentence string
	for line := range strings.Lines(failed.Stderr) {
		switch {
		case strings.HasPrefix(line, "Usage") || strings.HasPrefix(line, "Error") && sentence != "":
			t.Fatalf("more is said than a sentence:\n%v", err)
		case strings.HasPrefix(line, "Error: "):
			sentence = strings.TrimSpace(line)
		}
	}
	t.Logf("after %.2f s: %s", took.Seconds(), sentence)
	for _, word := range said {
		if !strings.Contains(strings.ToLower(sentence), strings.ToLower(word)) {
			t.Errorf("the sentence %q does not contain %q; all of the output:\n%v", sentence, word, err)
		}
	}
	if len(sentence) > longest {
		t.Errorf("the sentence has %d letters, more than %d", len(sentence), longest)
	}
	for _, word := range []string{"panic:", "goroutine ", "runtime error"} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("it panicked:\n%v", err)
		}
	}
}

// nothingRuns fails when a refused start has left a process.
func nothingRuns(t *testing.T, h *testhost.Host) {
	t.Helper()
	list, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.State != "Z" && p.Name() != "tester" && p.Name() != "sleep" {
			t.Errorf("still running: %v", p.Args)
		}
	}
}

func file(name, content string) func(*testing.T, *testhost.Host) {
	return func(t *testing.T, h *testhost.Host) {
		if err := h.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// takePort makes a program listen on the API's port until the test is over.
func takePort(t *testing.T, h *testhost.Host) {
	tester, err := testimage.BuildTester(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Copy(tester, "/opt/tester"); err != nil {
		t.Fatal(err)
	}
	p, err := h.Start("tester", "/opt/tester", "serve", ":6443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Signal(9)
		<-p.Gone()
	})
	h.Run(t, "timeout", "5", "bash", "-c", "until (</dev/tcp/127.0.0.1/6443) 2>/dev/null; do sleep 0.05; done")
}

func fullDisk(t *testing.T, h *testhost.Host) {
	h.Run(t, "sh", "-c", "mkdir -p /mnt/full && mount -t tmpfs -o size=1m full /mnt/full && dd if=/dev/zero of=/mnt/full/fill bs=4k 2>/dev/null || df /mnt/full | grep 100%")
}

// corrupt changes a few bytes of an embedded archive in a copy of the executable.
func corrupt(t *testing.T, h *testhost.Host) {
	root, err := cluster.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := cluster.Binary()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	assets, err := filepath.Glob(filepath.Join(root, "embedded-bins/assets/*.zst"))
	if err != nil || len(assets) == 0 {
		t.Fatalf("no archives in embedded-bins/assets: run `make build`: %v", err)
	}
	asset, err := os.ReadFile(assets[0])
	if err != nil {
		t.Fatal(err)
	}
	middle := asset[len(asset)/2:][:64]
	at := bytes.Index(program, middle)
	if at < 0 {
		t.Fatalf("%s is not part of %s: run `make build`", assets[0], binary)
	}
	for i := range 16 {
		program[at+i] ^= 0xff
	}
	if err := h.WriteFile("/opt/corrupt/k0s", program, 0o755); err != nil {
		t.Fatal(err)
	}
}

// A second k0s on the same data is refused, and the first does not notice.
func dataDirInUse(t *testing.T, h, other *testhost.Host, data string) {
	c := cluster.New(h, "--single", "--data-dir", data)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	refuses(t, h, "controller --single --data-dir "+data, []string{"another k0s", "process"})
	refuses(t, other, "controller --single --data-dir "+data, []string{"another k0s", data})
	if err := c.WaitAPI(ctx); err != nil {
		t.Errorf("the first k0s suffered: %v", err)
	}
	if _, err := c.Stop(ctx); err != nil {
		exit := new(exec.ExitError)
		t.Errorf("the first k0s ended badly: %v, %v", err, errors.As(err, &exit))
	}
}
