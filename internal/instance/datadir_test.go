package instance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k0s.io/k0s/internal/host"
)

func TestWhoseDataDir(t *testing.T) {
	for _, tc := range []struct {
		name      string
		files     []string // with a slash at the end: directories
		mayUse    bool
		mayDelete bool
	}{
		{"missing", nil, true, true},
		{"empty", []string{"./"}, true, true},
		{"a fresh disk", []string{"lost+found/", "lost+found/secret"}, true, true},
		{"disks for our parts", []string{"etcd/", "containerd/lost+found/"}, true, true},
		{"left by a k0s that was killed", []string{"k0s.yaml.lock", ".identity.json-123"}, true, true},
		{"things put there before the first start", []string{"pki/ca.crt", "manifests/a.yaml", "images/a.tar", "bin/x"}, true, false},
		{"ours by identity", []string{"identity.json", "anything/else"}, true, true},
		{"ours by journal", []string{"journal.jsonl", "etcd/member/wal"}, true, true},
		{"a home", []string{"alice/thesis.tex"}, false, false},
		{"a home with a directory of the mark's name", []string{"alice/thesis.tex", "identity.json/"}, false, false},
		{"a hidden file", []string{".bashrc"}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := host.Layout{DataDir: filepath.Join(t.TempDir(), "data"), RunDir: t.TempDir()}
			for _, file := range tc.files {
				path := filepath.Join(l.DataDir, file)
				dir := filepath.Dir(path)
				if strings.HasSuffix(file, "/") {
					dir = path
				}
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if dir != path {
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := CheckDataDir(l); (err == nil) != tc.mayUse || err != nil && !strings.Contains(err.Error(), "--data-dir") {
				t.Errorf("use it: %v", err)
			}
			if err := CheckMayDelete(l); (err == nil) != tc.mayDelete || err != nil && !strings.Contains(err.Error(), "--data-dir") {
				t.Errorf("delete it: %v", err)
			}
		})
	}
	for _, dir := range []string{"/", "/home", "/no-such-directory"} {
		l := host.Layout{DataDir: dir}
		if CheckDataDir(l) == nil || CheckMayDelete(l) == nil {
			t.Errorf("%s was taken for a data directory", dir)
		}
	}
}

func TestAcquireLeavesTheDirectoryAsItIs(t *testing.T) {
	l := host.Layout{DataDir: t.TempDir(), RunDir: t.TempDir()}
	if err := os.Chmod(l.DataDir, os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	lock, err := Acquire(l, RuntimeSpec{Role: "controller"})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(l.DataDir); err != nil || st.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("its mode became %v: %v", st.Mode(), err)
	}
	if err := os.RemoveAll(l.DataDir); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Errorf("releasing removed locks: %v", err)
	}
}

func TestLockOfAnother(t *testing.T) {
	l := host.Layout{DataDir: t.TempDir()}
	// Longer than our pid: what is left of it must not become part of ours.
	if err := os.WriteFile(LockFile(l.DataDir), []byte("99999999999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := LockOut(l.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	content, err := os.ReadFile(LockFile(l.DataDir))
	if err != nil || len(strings.Fields(string(content))) != 1 || strings.Contains(string(content), "99999") {
		t.Errorf("the lock says %q, %v", content, err)
	}
}

// `k0s status` looks for a running k0s while another starts.
func TestRunningIsNotInTheWay(t *testing.T) {
	l := host.Layout{DataDir: t.TempDir(), RunDir: t.TempDir()}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = Running(l)
			}
		}
	}()
	for range 100 {
		lock, err := Acquire(l, RuntimeSpec{Role: "controller"})
		if err != nil {
			t.Error(err)
			break
		}
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-stopped
}
