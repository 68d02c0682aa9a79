package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"k0s.io/k0s/internal/assets"
)

// imageSpec says what an image is to be.
type imageSpec struct {
	name, version, ref, entrypoint, user, architecture string
}

// epoch is the time of everything in an image, so that equal content is equal bytes.
var epoch = time.Unix(0, 0).UTC()

// packImage makes out/name.tar: an OCI layout with one image of one layer, the tree.
func packImage(spec imageSpec, tree, out string) (assets.ImageEntry, error) {
	var none assets.ImageEntry
	layer, err := tarTree(tree)
	if err != nil {
		return none, err
	}
	diffID := digest.FromBytes(layer)
	compressed, err := compress(bytes.NewReader(layer))
	if err != nil {
		return none, err
	}
	platform := v1.Platform{OS: "linux", Architecture: spec.architecture}
	layout := layout{}
	config, err := layout.addJSON(v1.MediaTypeImageConfig, v1.Image{
		Created:  &epoch,
		Platform: platform,
		Config: v1.ImageConfig{
			User:       spec.user,
			Env:        []string{"PATH=/"},
			Entrypoint: []string{spec.entrypoint},
			WorkingDir: "/",
		},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
	})
	if err != nil {
		return none, err
	}
	manifest, err := layout.addJSON(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config,
		Layers:    []v1.Descriptor{layout.add(v1.MediaTypeImageLayerZstd, compressed)},
	})
	if err != nil {
		return none, err
	}
	manifest.Platform = &platform
	manifest.Annotations = map[string]string{
		"io.containerd.image.name": spec.ref,
		v1.AnnotationRefName:       spec.ref,
	}
	archive, err := layout.tar(manifest)
	if err != nil {
		return none, err
	}
	entry := assets.ImageEntry{
		Name: spec.name, Version: spec.version, Ref: spec.ref, Digest: manifest.Digest.String(),
		Archive: spec.name + ".tar", Size: int64(len(archive)), SHA256: hexSum(archive),
	}
	return entry, os.WriteFile(filepath.Join(out, entry.Archive), archive, 0o644)
}

// layout is the blobs of an OCI layout, in the order in which they were added.
type layout struct {
	blobs []blob
}

type blob struct {
	digest digest.Digest
	data   []byte
}

func (l *layout) add(mediaType string, data []byte) v1.Descriptor {
	sum := digest.FromBytes(data)
	l.blobs = append(l.blobs, blob{sum, data})
	return v1.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(data))}
}

func (l *layout) addJSON(mediaType string, value any) (v1.Descriptor, error) {
	data, err := json.Marshal(value)
	return l.add(mediaType, data), err
}

func (l *layout) tar(manifest v1.Descriptor) ([]byte, error) {
	version, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{manifest},
	})
	if err != nil {
		return nil, err
	}
	var out tarBuffer
	out.start()
	out.file(v1.ImageLayoutFile, 0o644, version)
	out.file(v1.ImageIndexFile, 0o644, index)
	out.dir(v1.ImageBlobsDir, 0o755)
	out.dir(v1.ImageBlobsDir+"/sha256", 0o755)
	for _, blob := range l.blobs {
		out.file(v1.ImageBlobsDir+"/sha256/"+blob.digest.Encoded(), 0o644, blob.data)
	}
	return out.end()
}

// tarTree makes a layer of a tree. Everything in it belongs to root and is as old as time;
// a sticky directory (such as /tmp) may be written to by all.
func tarTree(tree string) ([]byte, error) {
	var out tarBuffer
	out.start()
	err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		name, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir() && info.Mode()&fs.ModeSticky != 0:
			out.dir(name, 0o1777)
		case entry.IsDir():
			out.dir(name, 0o755)
		case entry.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out.file(name, int64(plainMode(info)), data)
		default:
			return fmt.Errorf("%s is neither a file nor a directory", path)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out.end()
}

// tarBuffer writes a tar into memory and keeps the first error for its end.
type tarBuffer struct {
	bytes.Buffer
	writer *tar.Writer
	err    error
}

func (b *tarBuffer) start() { b.writer = tar.NewWriter(&b.Buffer) }

func (b *tarBuffer) dir(name string, mode int64) {
	b.header(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: epoch})
}

func (b *tarBuffer) file(name string, mode int64, data []byte) {
	b.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: epoch})
	if b.err == nil {
		_, b.err = b.writer.Write(data)
	}
}

func (b *tarBuffer) header(header *tar.Header) {
	if b.err == nil {
		b.err = b.writer.WriteHeader(header)
	}
}

func (b *tarBuffer) end() ([]byte, error) {
	if b.err == nil {
		b.err = b.writer.Close()
	}
	return b.Bytes(), b.err
}
