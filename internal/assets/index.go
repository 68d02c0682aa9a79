package assets

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

const (
	dir = "assets" // where everything lies in the embedded file system

	// IndexName is the name of the file which lists all that is embedded.
	IndexName = "index.json"
)

// ErrNone says that the executable was linked without any helpers or images.
var ErrNone = errors.New("this k0s was built without its helpers: run 'make build'")

// Index lists what is embedded. embedded-bins/pack writes it.
type Index struct {
	Helpers []Helper     `json:"helpers,omitempty"`
	Images  []ImageEntry `json:"images,omitempty"`
}

// Helper is one archive of files which are unpacked to the host.
type Helper struct {
	Name     string            `json:"name"`
	Versions map[string]string `json:"versions"` // program → version
	Archive  string            `json:"archive"`  // zstd of the files' contents, one after another
	Files    []File            `json:"files"`    // in the order they have in the archive
	Links    []Link            `json:"links,omitempty"`
}

// File is one file of a helper. Its name is relative to the directory unpacked into.
type File struct {
	Name   string      `json:"name"`
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256"`
}

// Link is a symbolic link of a helper.
type Link struct {
	Name   string `json:"name"`
	Target string `json:"target"`
}

// ImageEntry is one OCI image archive.
type ImageEntry struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Ref     string `json:"ref"`
	Digest  string `json:"digest"`  // of the image manifest
	Archive string `json:"archive"` // an OCI layout as a tar, zstd-compressed if the name ends in .zst
	Size    int64  `json:"size"`    // of the tar
	SHA256  string `json:"sha256"`  // of the tar
}

// readIndex returns ErrNone where there is no index.
func readIndex(fsys fs.FS) (Index, error) {
	var index Index
	data, err := fs.ReadFile(fsys, path.Join(dir, IndexName))
	if errors.Is(err, fs.ErrNotExist) {
		return index, ErrNone
	}
	if err != nil {
		return index, fmt.Errorf("reading the list of embedded assets: %w", err)
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return index, fmt.Errorf("the list of embedded assets is corrupt: %w: %s", err, damaged)
	}
	return index, nil
}

// Versions tells the version of every embedded program, by name.
func Versions(fsys fs.FS) (map[string]string, error) {
	index, err := readIndex(fsys)
	if err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, helper := range index.Helpers {
		for name, version := range helper.Versions {
			versions[name] = version
		}
	}
	for _, image := range index.Images {
		versions[image.Name] = image.Version
	}
	return versions, nil
}
