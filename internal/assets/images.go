package assets

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
)

// Image is one embedded image of a system pod.
type Image struct {
	Ref    string // what it is called, such as k0s.io/pause:3.10.2
	Digest string // of its manifest

	entry ImageEntry
	fsys  fs.FS
}

// Images lists the embedded images.
func Images(fsys fs.FS) ([]Image, error) {
	index, err := readIndex(fsys)
	if err != nil {
		return nil, err
	}
	images := make([]Image, 0, len(index.Images))
	for _, entry := range index.Images {
		images = append(images, Image{Ref: entry.Ref, Digest: entry.Digest, entry: entry, fsys: fsys})
	}
	return images, nil
}

// Open returns the image as an OCI layout in a tar. Reading to the end checks it: instead
// of io.EOF comes an error if it is not what was packed.
func (i Image) Open() (io.ReadCloser, error) {
	archive, err := open(i.fsys, i.entry.Archive)
	if err != nil {
		return nil, fmt.Errorf("image %s of the k0s executable cannot be opened: %w: %s", i.Ref, err, damaged)
	}
	return &verifier{ReadCloser: archive, entry: i.entry, sum: sha256.New()}, nil
}

// verifier hashes what passes and speaks up at the end.
type verifier struct {
	io.ReadCloser
	entry ImageEntry
	sum   hash.Hash
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.sum.Write(p[:n])
	if err == nil {
		return n, nil
	}
	got := hexSum(v.sum)
	if errors.Is(err, io.EOF) && got == v.entry.SHA256 {
		return n, io.EOF
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, corrupt(v.entry.Ref, v.entry.SHA256, got, err)
}
