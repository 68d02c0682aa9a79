package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"k0s.io/k0s/internal/assets"
)

// makeTree makes a directory with a program, a data file, a link and a sticky directory.
func makeTree(t *testing.T, links bool) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"bin/program": 0o750, "data": 0o600} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("this is "+filepath.Base(name)), mode); err != nil {
			t.Fatal(err)
		}
	}
	if links {
		if err := os.Symlink("bin/program", filepath.Join(dir, "tool")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tmp, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What is packed here must be what internal/assets unpacks.
func TestHelperRoundTrip(t *testing.T) {
	packed, embedded := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(embedded, "assets"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := helper([]string{"-name", "h", "-version", "p=1,q=2", "-out", packed, makeTree(t, true)}); err != nil {
		t.Fatal(err)
	}
	if err := index([]string{"-out", filepath.Join(embedded, "assets"), filepath.Join(packed, "h.json")}); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := assets.Unpack(t.Context(), os.DirFS(embedded), bin); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"bin/program": "this is program", "data": "this is data", "tool": "this is program"} {
		if got, err := os.ReadFile(filepath.Join(bin, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	versions, err := assets.Versions(os.DirFS(embedded))
	if err != nil || !maps.Equal(versions, map[string]string{"p": "1", "q": "2"}) {
		t.Errorf("got versions %v, %v", versions, err)
	}
}

func TestIndexRemovesWhatIsGone(t *testing.T) {
	out := t.TempDir()
	for _, name := range []string{"README", "old.zst"} {
		if err := os.WriteFile(filepath.Join(out, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := index([]string{"-out", out}); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if !slices.Equal(left, []string{"README", "index.json"}) {
		t.Errorf("left are %v", left)
	}
}

func TestImage(t *testing.T) {
	spec := imageSpec{
		name: "i", version: "v1", ref: "k0s.io/i:v1", entrypoint: "/bin/program", user: "65534", architecture: "amd64",
	}
	out := t.TempDir()
	tree := makeTree(t, false)
	entry, err := packImage(spec, tree, out)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(filepath.Join(out, "i.tar"))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := untar(t, archive)

	var index v1.Index
	parse(t, files["index.json"], &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Digest.String() != entry.Digest {
		t.Fatalf("index is %s, entry %+v", files["index.json"], entry)
	}
	for _, key := range []string{"io.containerd.image.name", v1.AnnotationRefName} {
		if got := index.Manifests[0].Annotations[key]; got != spec.ref {
			t.Errorf("annotation %s is %q, want %q", key, got, spec.ref)
		}
	}
	var manifest v1.Manifest
	parse(t, blobOf(t, files, index.Manifests[0]), &manifest)
	var config v1.Image
	parse(t, blobOf(t, files, manifest.Config), &config)
	if config.Config.User != "65534" || !slices.Equal(config.Config.Entrypoint, []string{"/bin/program"}) || config.Architecture != "amd64" {
		t.Errorf("config is %+v", config)
	}

	decoder, err := zstd.NewReader(bytes.NewReader(blobOf(t, files, manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	layer, err := io.ReadAll(decoder)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest.FromBytes(layer); got != config.RootFS.DiffIDs[0] {
		t.Errorf("layer is %s, config says %s", got, config.RootFS.DiffIDs[0])
	}
	content, modes := untar(t, layer)
	if got := string(content["bin/program"]); got != "this is program" {
		t.Errorf("program is %q", got)
	}
	want := map[string]int64{"bin/": 0o755, "bin/program": 0o755, "data": 0o644, "tmp/": 0o1777}
	if !maps.Equal(modes, want) {
		t.Errorf("layer holds %v, want %v", modes, want)
	}
}

func TestImageIsReproducible(t *testing.T) {
	var archives [][]byte
	for range 2 {
		out, tree := t.TempDir(), makeTree(t, false)
		// A file's time and the builder's umask must not show.
		if err := os.Chtimes(filepath.Join(tree, "data"), time.Now(), time.Now().Add(-time.Hour*time.Duration(len(archives)))); err != nil {
			t.Fatal(err)
		}
		if _, err := packImage(imageSpec{name: "i", ref: "r", architecture: "amd64"}, tree, out); err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(filepath.Join(out, "i.tar"))
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, archive)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of one tree differ")
	}
}

func TestVersions(t *testing.T) {
	for _, bad := range []string{"", "runc", "runc=", "=1", "runc=1,"} {
		if got, err := parseVersions(bad); err == nil || !strings.Contains(err.Error(), "program=version") {
			t.Errorf("%q: got %v, %v; want an error", bad, got, err)
		}
	}
}

// untar returns the files of a tar, and the mode of all that is in it.
func untar(t *testing.T, archive []byte) (map[string][]byte, map[string]int64) {
	t.Helper()
	files, modes := map[string][]byte{}, map[string]int64{}
	for reader := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files, modes
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[header.Name] = header.Mode
		if header.Typeflag == tar.TypeReg {
			if files[header.Name], err = io.ReadAll(reader); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// blobOf checks that a descriptor describes the blob it names.
func blobOf(t *testing.T, files map[string][]byte, d v1.Descriptor) []byte {
	t.Helper()
	data := files["blobs/sha256/"+d.Digest.Encoded()]
	if digest.FromBytes(data) != d.Digest || int64(len(data)) != d.Size {
		t.Fatalf("blob of %+v has %d bytes of %s", d, len(data), digest.FromBytes(data))
	}
	return data
}

func parse(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
}
