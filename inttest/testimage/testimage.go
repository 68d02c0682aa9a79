// Package testimage builds the container image that the pods of the tests run: busybox, and
// beside it `tester` (see its folder). It is one OCI archive, built without a registry.
package testimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Name is the image's name in a cluster that the archive was imported into. Pods that use it
// need imagePullPolicy Never.
const Name = "k0s.test/tools:1"

// busybox is where Debian's package busybox-static has it.
const busybox = "/bin/busybox"

// Build writes the archive to a file.
func Build(ctx context.Context, file string) error {
	program, err := BuildTester(ctx, filepath.Dir(file))
	if err != nil {
		return err
	}
	layer, err := layer(ctx, program)
	if err != nil {
		return fmt.Errorf("building the test image: %w", err)
	}
	archive, err := archive(layer)
	if err != nil {
		return fmt.Errorf("building the test image: %w", err)
	}
	return os.WriteFile(file, archive, 0o644)
}

// BuildTester compiles the tester into a directory and returns its path.
func BuildTester(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "tester")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program,
		"k0s.io/k0s/inttest/testimage/tester")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling the tester: %w\n%s", err, out)
	}
	return program, nil
}

// layer is the image's file system as a tar.
func layer(ctx context.Context, tester string) ([]byte, error) {
	shell, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install busybox-static", err)
	}
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("asking %s for its programs: %w", busybox, err)
	}
	program, err := os.ReadFile(tester)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	var errs []error
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		errs = append(errs, t.WriteHeader(&h))
		if len(content) > 0 {
			_, err := t.Write(content)
			errs = append(errs, err)
		}
	}
	for _, dir := range []string{"bin/", "etc/", "root/", "var/"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, shell)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/tester", Mode: 0o755}, program)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	errs = append(errs, t.Close())
	return b.Bytes(), errors.Join(errs...)
}

// archive packs a layer as an OCI image layout with one image in it.
func archive(layer []byte) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	var errs []error
	add := func(name string, content []byte) {
		errs = append(errs, t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}))
		_, err := t.Write(content)
		errs = append(errs, err)
	}
	type object map[string]any
	blob := func(mediaType string, content []byte) object {
		digest := fmt.Sprintf("%x", sha256.Sum256(content))
		add("blobs/sha256/"+digest, content)
		return object{"mediaType": mediaType, "digest": "sha256:" + digest, "size": len(content)}
	}
	document := func(v any) []byte {
		text, err := json.Marshal(v)
		errs = append(errs, err)
		return text
	}
	layerBlob := blob("application/vnd.oci.image.layer.v1.tar", layer)
	config := blob("application/vnd.oci.image.config.v1+json", document(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sh"}},
		"rootfs": object{"type": "layers", "diff_ids": []any{layerBlob["digest"]}},
	}))
	manifest := blob("application/vnd.oci.image.manifest.v1+json", document(object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config, "layers": []any{layerBlob},
	}))
	manifest["annotations"] = object{"io.containerd.image.name": Name, "org.opencontainers.image.ref.name": "1"}
	manifest["platform"] = object{"architecture": runtime.GOARCH, "os": "linux"}
	add("index.json", document(object{"schemaVersion": 2, "manifests": []any{manifest}}))
	add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	errs = append(errs, t.Close())
	return b.Bytes(), errors.Join(errs...)
}
