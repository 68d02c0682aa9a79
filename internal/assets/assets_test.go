package assets

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"
)

func sum(data string) string {
	digest := sha256.Sum256([]byte(data))
	return hex.EncodeToString(digest[:])
}

func compressed(t *testing.T, data string) []byte {
	t.Helper()
	var out bytes.Buffer
	encoder, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(encoder, data); err != nil {
		t.Fatal(err)
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const (
	runc    = "the runc program"
	library = "a library"
	tool    = "a tool which needs the library"
	tarball = "an image"
)

// embedded is what a build would embed: two helpers, one of them with two files and a
// link, and two images, one of them packed.
func embedded(t *testing.T) fstest.MapFS {
	t.Helper()
	index := Index{
		Helpers: []Helper{
			{
				Name: "runc", Versions: map[string]string{"runc": "1.5.2"}, Archive: "runc.zst",
				Files: []File{{Name: "runc", Mode: 0o755, Size: int64(len(runc)), SHA256: sum(runc)}},
			},
			{
				Name: "pf", Versions: map[string]string{"nftables": "1.0", "iptables": "1.8"}, Archive: "pf.zst",
				Files: []File{
					{Name: "pf/lib/library", Mode: 0o644, Size: int64(len(library)), SHA256: sum(library)},
					{Name: "pf/tool", Mode: 0o755, Size: int64(len(tool)), SHA256: sum(tool)},
				},
				Links: []Link{{Name: "nft", Target: "pf/tool"}},
			},
		},
		Images: []ImageEntry{
			{Name: "pause", Version: "3", Ref: "k0s.io/pause:3", Digest: "sha256:1", Archive: "pause.tar", Size: int64(len(tarball)), SHA256: sum(tarball)},
			{Name: "dns", Version: "v4", Ref: "k0s.io/dns:v4", Digest: "sha256:2", Archive: "dns.tar.zst", Size: int64(len(tarball)), SHA256: sum(tarball)},
		},
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{
		"assets/index.json":  {Data: data},
		"assets/runc.zst":    {Data: compressed(t, runc)},
		"assets/pf.zst":      {Data: compressed(t, library+tool)},
		"assets/pause.tar":   {Data: []byte(tarball)},
		"assets/dns.tar.zst": {Data: compressed(t, tarball)},
	}
}

// contents is every file and link below a directory, with its mode.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		found[relative] = info.Mode().String() + " " + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func requireUnpacked(t *testing.T, dir string) {
	t.Helper()
	want := map[string]string{
		"runc":           "-rwxr-xr-x " + runc,
		"pf/lib/library": "-rw-r--r-- " + library,
		"pf/tool":        "-rwxr-xr-x " + tool,
		"nft":            "Lrwxrwxrwx " + tool,
	}
	got := contents(t, dir)
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("unexpected file %s", name)
		}
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is %q, want %q", name, got[name], want[name])
		}
	}
}

func TestUnpack(t *testing.T) {
	cases := []struct {
		name   string
		before func(dir string) error
	}{
		{"into nothing", func(dir string) error { return os.Remove(dir) }},
		{"into an empty directory", func(string) error { return nil }},
		{"over a file of the same size", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "runc"), []byte(strings.ToUpper(runc)), 0o755)
		}},
		{"over a file of another mode", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "runc"), []byte(runc), 0o600)
		}},
		{"over a link", func(dir string) error { return os.Symlink("/dev/null", filepath.Join(dir, "runc")) }},
		{"over another link", func(dir string) error { return os.Symlink("/dev/null", filepath.Join(dir, "nft")) }},
		{"with leftovers", func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "pf"), 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "pf", tempPrefix+"123"), []byte("half"), 0o600)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "bin")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.before(dir); err != nil {
				t.Fatal(err)
			}
			if err := Unpack(t.Context(), embedded(t), dir); err != nil {
				t.Fatal(err)
			}
			requireUnpacked(t, dir)
		})
	}
}

func TestUnpackAgain(t *testing.T) {
	dir := t.TempDir()
	fsys := embedded(t)
	if err := Unpack(t.Context(), fsys, dir); err != nil {
		t.Fatal(err)
	}
	longAgo := time.Unix(1, 0)
	names := []string{"runc", "pf/lib/library", "pf/tool"}
	for _, name := range names {
		if err := os.Chtimes(filepath.Join(dir, name), longAgo, longAgo); err != nil {
			t.Fatal(err)
		}
	}
	// The last file of an archive, so that the one before must be skipped over.
	if err := os.WriteFile(filepath.Join(dir, "pf/tool"), []byte("tampered with"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(t.Context(), fsys, dir); err != nil {
		t.Fatal(err)
	}
	requireUnpacked(t, dir)
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if rewritten := !info.ModTime().Equal(longAgo); rewritten != (name == "pf/tool") {
			t.Errorf("%s was rewritten: %v", name, rewritten)
		}
	}
}

func TestUnpackWithoutArchives(t *testing.T) {
	dir := t.TempDir()
	fsys := embedded(t)
	if err := Unpack(t.Context(), fsys, dir); err != nil {
		t.Fatal(err)
	}
	// Nothing is to be done, so nothing may be read.
	delete(fsys, "assets/runc.zst")
	delete(fsys, "assets/pf.zst")
	if err := Unpack(t.Context(), fsys, dir); err != nil {
		t.Fatal(err)
	}
}

func TestDamage(t *testing.T) {
	flip := func(data []byte) []byte {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 0x10
		return data
	}
	cases := []struct {
		name   string
		damage func(fstest.MapFS)
		want   []string
	}{
		{"a bit of an archive", func(fsys fstest.MapFS) {
			fsys["assets/runc.zst"].Data = flip(fsys["assets/runc.zst"].Data)
		}, []string{`asset "runc/runc"`, "corrupt", sum(runc), "got"}},
		{"an archive cut short", func(fsys fstest.MapFS) {
			fsys["assets/pf.zst"].Data = fsys["assets/pf.zst"].Data[:10]
		}, []string{`asset "pf/pf/lib/library"`, "corrupt", sum(library), "got"}},
		{"other content", func(fsys fstest.MapFS) {
			fsys["assets/runc.zst"].Data = compressed(t, strings.ToUpper(runc))
		}, []string{"corrupt", sum(runc), "got " + sum(strings.ToUpper(runc))}},
		{"an archive missing", func(fsys fstest.MapFS) {
			delete(fsys, "assets/runc.zst")
		}, []string{`asset "runc"`, "cannot be opened"}},
		{"the index", func(fsys fstest.MapFS) {
			fsys["assets/index.json"].Data = []byte("{")
		}, []string{"list of embedded assets is corrupt"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fsys, dir := embedded(t), t.TempDir()
			c.damage(fsys)
			err := Unpack(t.Context(), fsys, dir)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(c.want, damaged) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			for name := range contents(t, dir) {
				if strings.Contains(name, tempPrefix) {
					t.Errorf("left behind: %s", name)
				}
			}
		})
	}
}

func TestNone(t *testing.T) {
	fsys := fstest.MapFS{"assets/README": {}}
	_, imagesErr := Images(fsys)
	_, versionsErr := Versions(fsys)
	for name, err := range map[string]error{
		"Unpack":   Unpack(t.Context(), fsys, t.TempDir()),
		"Images":   imagesErr,
		"Versions": versionsErr,
	} {
		if !errors.Is(err, ErrNone) {
			t.Errorf("%s: got %v, want %v", name, err, ErrNone)
		}
	}
}

func TestFullDisk(t *testing.T) {
	// /dev/full is a disk that is always full; unpackFile makes its own files, so the
	// sentence is checked where it is made.
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	out := &fileWriter{file: full}
	if _, err := out.Write([]byte("x")); err == nil {
		t.Fatal("/dev/full took what was written to it")
	}
	got := writeError("/data/bin/runc", 2048, out.err).Error()
	if !strings.Contains(got, "the disk is full: /data/bin/runc needs 2 KiB") || !strings.Contains(got, "--data-dir") {
		t.Errorf("got %q", got)
	}
}

func TestImages(t *testing.T) {
	images, err := Images(embedded(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 2 || images[0].Ref != "k0s.io/pause:3" || images[1].Digest != "sha256:2" {
		t.Fatalf("got %+v", images)
	}
	for _, image := range images {
		archive, err := image.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil || string(data) != tarball {
			t.Errorf("%s: read %q, %v", image.Ref, data, err)
		}
		if err := archive.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedImage(t *testing.T) {
	fsys := embedded(t)
	fsys["assets/pause.tar"].Data = []byte("another image")
	images, err := Images(fsys)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := images[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	_, err = io.ReadAll(archive)
	if err == nil || !strings.Contains(err.Error(), sum(tarball)) || !strings.Contains(err.Error(), damaged) {
		t.Errorf("got %v", err)
	}
}

func TestVersions(t *testing.T) {
	got, err := Versions(embedded(t))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"runc": "1.5.2", "nftables": "1.0", "iptables": "1.8", "pause": "3", "dns": "v4"}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for name, version := range want {
		if got[name] != version {
			t.Errorf("%s is %q, want %q", name, got[name], version)
		}
	}
}
