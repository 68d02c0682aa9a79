package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseLine(t *testing.T) {
	for _, tc := range []struct {
		line  string
		level slog.Level
		msg   string
		ok    bool
	}{
		{`E1122 10:50:16.123456    1234 server.go:71] "Failed" err="x"`, slog.LevelError, `server.go:71] "Failed" err="x"`, true},
		{`I1122 10:50:16.123456       1 main.go:1] hello`, slog.LevelInfo, `main.go:1] hello`, true},
		{`W1122 10:50:16.123456       1 main.go:1] careful`, slog.LevelWarn, `main.go:1] careful`, true},
		{`{"level":"warn","ts":"2026","caller":"a.go:1","msg":"slow"}`, slog.LevelWarn, `slow {"caller":"a.go:1"}`, true},
		{`{"level":"fatal","msg":"gone"}`, slog.LevelError, "gone", true},
		{`{"severity":"warning","time":"2026","message":"slow","took":3}`, slog.LevelWarn, `slow {"took":3}`, true},
		{`time="2026-11-22T10:00:00Z" level=error msg="failed" error="y"`, slog.LevelError, `msg="failed" error="y"`, true},
		{`time="2026-11-22T10:00:00Z" level=debug msg=x`, slog.LevelDebug, `msg=x`, true},
		{"goroutine 1 [running]:", slog.LevelInfo, "goroutine 1 [running]:", false},
		{"{not json", slog.LevelInfo, "{not json", false},
		{"Error: unknown flag: --x", slog.LevelInfo, "Error: unknown flag: --x", false},
	} {
		level, msg, ok := parseLine(tc.line)
		if level != tc.level || msg != tc.msg || ok != tc.ok {
			t.Errorf("%s:\ngot %v %q %v", tc.line, level, msg, ok)
		}
	}
}

func TestRelayKeepsSeverityOfContinuedLines(t *testing.T) {
	var out bytes.Buffer
	Relay(strings.NewReader("E1122 10:50:16.123456 1 a.go:1] panic\n\tgoroutine 1\n"+strings.Repeat("x", 2*maxLine)+"\nI1122 10:50:16.123456 1 a.go:2] fine\n"),
		slog.New(slog.NewTextHandler(&out, nil)), nil)
	var levels []string
	for line := range strings.Lines(out.String()) {
		for field := range strings.FieldsSeq(line) {
			if level, ok := strings.CutPrefix(field, "level="); ok {
				levels = append(levels, level)
			}
		}
	}
	if got := strings.Join(levels, " "); got != "ERROR ERROR ERROR INFO" {
		t.Errorf("got %s", got)
	}
}

func TestRelayKeepsTheHeadOfAnOverlongLine(t *testing.T) {
	head, tail := "head"+strings.Repeat("h", maxLine-4), strings.Repeat("t", maxLine+maxLine/2)
	var got []string
	Relay(strings.NewReader(head+tail+"\nnext\n"), slog.New(slog.DiscardHandler), nil, func(msg string) { got = append(got, msg) })
	if len(got) != 2 || got[0] != head || got[1] != "next" {
		for _, line := range got {
			t.Errorf("got a line of %d bytes: %.20s…%s", len(line), line, line[max(0, len(line)-20):])
		}
	}
}

func TestRelayRedacts(t *testing.T) {
	var out bytes.Buffer
	var got []string
	Relay(strings.NewReader("time=x level=info msg=\"a://u:pa&ss@h\"\n{\"severity\":\"error\",\"message\":\"no pa\\u0026ss\"}\nplain pa&ss\n"),
		slog.New(slog.NewTextHandler(&out, nil)), func(line string) string { return strings.ReplaceAll(line, "pa&ss", "***") },
		func(msg string) { got = append(got, msg) })
	if want := []string{`msg="a://u:***@h"`, "no ***", "plain ***"}; !slices.Equal(got, want) || strings.Contains(out.String(), "ss") {
		t.Errorf("got %q and the log\n%s", got, out.String())
	}
}

// sh is a child that runs script.
func sh(t *testing.T, script string) Spec {
	return Spec{
		Name: "sh", Path: "/bin/sh", Args: []string{"-c", script},
		PIDFile: filepath.Join(t.TempDir(), "sh.pid"), Log: slog.New(slog.DiscardHandler),
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func TestRestartAfterCrash(t *testing.T) {
	p, err := Start(sh(t, "echo no such flag; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "two restarts", func() bool { return p.Info().Restarts >= 2 })
	if got := p.Info().LastExit; got != "exit status 3" {
		t.Errorf("last exit: %s", got)
	}
	eventually(t, "it is given up", func() bool { return p.Broken() != nil })
	if got := p.Broken().Error(); !strings.Contains(got, "no such flag") || !strings.Contains(got, "exit status 3") {
		t.Errorf("got %s", got)
	}
	if err := p.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestStopKillsTheStubborn(t *testing.T) {
	spec := sh(t, `trap "" TERM; echo up; while :; do sleep 1; done`)
	r, w := io.Pipe()
	spec.Log = slog.New(slog.NewTextHandler(w, nil))
	spec.StopTimeout = 100 * time.Millisecond
	p, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 512)); err != nil { // the trap is set
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r)
	pid := p.Info().PID
	if err := p.Stop(context.Background()); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v", err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	if _, err := os.Stat(spec.PIDFile); !os.IsNotExist(err) {
		t.Errorf("pid file is still there: %v", err)
	}
}

func TestCannotStart(t *testing.T) {
	var out bytes.Buffer
	spec := sh(t, "")
	spec.Path, spec.Log = "/does/not/exist", slog.New(slog.NewTextHandler(&out, nil))
	if _, err := Start(spec); err == nil || !strings.Contains(err.Error(), "starting sh") {
		t.Errorf("got %v", err)
	}
	if out.Len() != 0 { // the error says it all: it is not going to be started again
		t.Errorf("it was logged: %s", out.String())
	}
}

func TestStopReachesAChildThatIsBeingStarted(t *testing.T) {
	p, ctx := newProcess(sh(t, `trap "" TERM; while :; do sleep 1; done`))
	p.cancel()
	p.kill() // before there is a process id
	if err := p.runOnce(ctx, func(error) {}); err == nil || !strings.HasPrefix(err.Error(), "signal: ") {
		t.Errorf("got %v", err)
	}
}

func TestStopGivesUpOnAChildThatCannotBeKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := sh(t, "")
		spec.StopTimeout = time.Second
		p, _ := newProcess(spec) // its supervision never ends
		p.pid = 4711
		begin := time.Now()
		if err := p.Stop(context.Background()); err == nil || !strings.Contains(err.Error(), "process 4711") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != spec.StopTimeout+killTimeout {
			t.Errorf("took %v", took)
		}
	})
}

// TestStatusWhileStarting is for the race detector.
func TestStatusWhileStarting(t *testing.T) {
	c := Component("sh", func() (Spec, error) { return sh(t, "exec sleep 60"), nil }, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c.Process().PID == 0 {
			runtime.Gosched()
		}
	}()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := c.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestPredecessorIsEnded(t *testing.T) {
	old := exec.Command("sleep", "60")
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- old.Wait() }()
	spec := sh(t, "exec sleep 60")
	if err := writePIDFile(spec.PIDFile, old.Process.Pid); err != nil {
		t.Fatal(err)
	}
	p, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(context.Background())
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the predecessor lives on")
	}
}

func TestStrangerWithTheSamePIDIsLeftAlone(t *testing.T) {
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stranger.Process.Kill(); stranger.Wait() }()
	spec := sh(t, "exec sleep 60")
	if err := os.WriteFile(spec.PIDFile, fmt.Appendf(nil, "%d 1\n", stranger.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(context.Background())
	if err := syscall.Kill(stranger.Process.Pid, 0); err != nil {
		t.Errorf("the stranger was killed: %v", err)
	}
}

// TestChildDiesWithSupervisor runs this test binary as a supervisor and kills it.
func TestChildDiesWithSupervisor(t *testing.T) {
	if pidFile := os.Getenv("SUPERVISE"); pidFile != "" {
		spec := sh(t, "exec sleep 60")
		spec.PIDFile = pidFile
		if _, err := Start(spec); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		return
	}
	pidFile := filepath.Join(t.TempDir(), "child.pid")
	supervisor := exec.Command(os.Args[0], "-test.run=TestChildDiesWithSupervisor")
	supervisor.Env = append(os.Environ(), "SUPERVISE="+pidFile, "TMPDIR="+t.TempDir())
	if err := supervisor.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	eventually(t, "child runs", func() bool {
		content, _ := os.ReadFile(pidFile)
		pid, _, ok := strings.Cut(string(content), " ")
		child, _ = strconv.Atoi(pid)
		return ok && child != 0
	})
	supervisor.Process.Kill()
	supervisor.Wait()
	if err := waitGone(child); err != nil {
		t.Error(err)
	}
}

// In a process with HEADLESS set, the first thread ends, and the rest goes on.
func init() {
	if os.Getenv("HEADLESS") != "" {
		go func() { time.Sleep(time.Minute); os.Exit(0) }()
		syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
}

// A process that is killed under load may look like a zombie while most of it is still there: with the
// port that its successor is to listen on.
func TestPredecessorThatLooksLikeAZombieIsEnded(t *testing.T) {
	old := exec.Command(os.Args[0])
	old.Env = append(os.Environ(), "HEADLESS=1")
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	pid := old.Process.Pid
	eventually(t, "its first thread ends", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return strings.Contains(string(stat), ") Z ")
	})
	spec := sh(t, "exec sleep 60")
	if err := writePIDFile(spec.PIDFile, pid); err != nil {
		t.Fatal(err)
	}
	p, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(context.Background())
	if threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)); err == nil && len(threads) > 1 {
		t.Errorf("%d of its threads live on", len(threads)-1)
	}
	if err := old.Wait(); err == nil {
		t.Error("it was not killed")
	}
}
