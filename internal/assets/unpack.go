// Package assets unpacks what is embedded in the k0s executable: helper programs, which
// go to the data directory, and images, which go to containerd. Everything is checked
// against the hashes written down when it was packed.
package assets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

const (
	damaged    = "the executable is damaged: download it again"
	tempPrefix = ".k0s-unpack-" // of files that are being written
)

// Unpack makes the helpers in binDir what this executable brings: files which already
// have the right content and mode are left alone, all others are replaced atomically, so
// that a program being run is never half written. Archives are unpacked in parallel.
// binDir is created (mode 0755) if need be.
func Unpack(ctx context.Context, fsys fs.FS, binDir string) error {
	index, err := readIndex(fsys)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return fmt.Errorf("creating the directory for helper programs: %w", err)
	}
	if err := removeLeftovers(binDir); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, helper := range index.Helpers {
		group.Go(func() error { return unpackHelper(ctx, fsys, helper, binDir) })
	}
	return group.Wait()
}

// removeLeftovers removes what an unpacking that was killed has left behind.
func removeLeftovers(binDir string) error {
	return filepath.WalkDir(binDir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasPrefix(entry.Name(), tempPrefix) {
			err = os.Remove(name)
		}
		if err != nil {
			return fmt.Errorf("clearing the directory for helper programs: %w", err)
		}
		return nil
	})
}

func unpackHelper(ctx context.Context, fsys fs.FS, helper Helper, binDir string) error {
	wanted, last := make([]bool, len(helper.Files)), -1
	for i, file := range helper.Files {
		wanted[i] = !isUnpacked(ctx, filepath.Join(binDir, file.Name), file)
		if wanted[i] {
			last = i
		}
	}
	if last >= 0 {
		if err := unpackFiles(ctx, fsys, helper, binDir, wanted, last); err != nil {
			return err
		}
	}
	for _, link := range helper.Links {
		if err := makeLink(binDir, link); err != nil {
			return err
		}
	}
	return nil
}

// isUnpacked tells whether the file on disk is already what it should be. One that cannot
// be read is not: writing it anew will show why.
func isUnpacked(ctx context.Context, name string, want File) bool {
	info, err := os.Lstat(name)
	if err != nil || info.Mode() != want.Mode || info.Size() != want.Size {
		return false
	}
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, contextReader{ctx, file}); err != nil {
		return false
	}
	return hexSum(sum) == want.SHA256
}

// unpackFiles reads the archive up to its last wanted file.
func unpackFiles(ctx context.Context, fsys fs.FS, helper Helper, binDir string, wanted []bool, last int) error {
	archive, err := open(fsys, helper.Archive)
	if err != nil {
		return fmt.Errorf("asset %q of the k0s executable cannot be opened: %w: %s", helper.Name, err, damaged)
	}
	defer archive.Close()
	content := contextReader{ctx, archive}
	for i, file := range helper.Files[:last+1] {
		if !wanted[i] {
			if _, err := io.CopyN(io.Discard, content, file.Size); err != nil && ctx.Err() == nil {
				return corrupt(path.Join(helper.Name, file.Name), file.SHA256, "", err)
			}
			continue
		}
		if err := unpackFile(content, helper.Name, file, binDir); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
	return ctx.Err()
}

func unpackFile(content io.Reader, helper string, file File, binDir string) error {
	target := filepath.Join(binDir, file.Name)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return writeError(target, file.Size, err)
	}
	temp, err := os.CreateTemp(filepath.Dir(target), tempPrefix+"*")
	if err != nil {
		return writeError(target, file.Size, err)
	}
	defer os.Remove(temp.Name()) // in vain once it has been renamed
	defer temp.Close()

	sum, out := sha256.New(), &fileWriter{file: temp}
	_, err = io.CopyN(io.MultiWriter(out, sum), content, file.Size)
	if out.err != nil {
		return writeError(target, file.Size, out.err)
	}
	if got := hexSum(sum); err != nil || got != file.SHA256 {
		return corrupt(path.Join(helper, file.Name), file.SHA256, got, err)
	}
	// Not by the mode of OpenFile, which the umask would cut.
	if err := temp.Chmod(file.Mode); err != nil {
		return writeError(target, file.Size, err)
	}
	if err := temp.Close(); err != nil {
		return writeError(target, file.Size, err)
	}
	if err := os.Rename(temp.Name(), target); err != nil {
		return writeError(target, file.Size, err)
	}
	return nil
}

func makeLink(binDir string, link Link) error {
	name := filepath.Join(binDir, link.Name)
	if target, err := os.Readlink(name); err == nil && target == link.Target {
		return nil
	}
	temp := filepath.Join(filepath.Dir(name), tempPrefix+filepath.Base(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return writeError(name, 0, err)
	}
	if err := os.Symlink(link.Target, temp); err != nil {
		return writeError(name, 0, err)
	}
	if err := os.Rename(temp, name); err != nil {
		return errors.Join(writeError(name, 0, err), os.Remove(temp))
	}
	return nil
}

// open opens an archive for reading its uncompressed content.
func open(fsys fs.FS, archive string) (io.ReadCloser, error) {
	file, err := fsys.Open(path.Join(dir, archive))
	if err != nil {
		return nil, err
	}
	if path.Ext(archive) != ".zst" {
		return file, nil
	}
	// One goroutine each: other archives are unpacked at the same time.
	decoder, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return unpacker{decoder, file}, nil
}

// unpacker closes a decoder and what it reads from.
type unpacker struct {
	*zstd.Decoder
	file fs.File
}

func (u unpacker) Close() error {
	u.Decoder.Close()
	return u.file.Close()
}

// contextReader ends reading when its context does.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// fileWriter remembers what went wrong in writing, which a copy does not tell from what
// went wrong in reading.
type fileWriter struct {
	file *os.File
	err  error
}

func (w *fileWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

func writeError(name string, size int64, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk is full: %s needs %d KiB: free some space there, or choose another place with --data-dir: %w",
			name, (size+1023)/1024, err)
	}
	return fmt.Errorf("unpacking %s: %w", name, err)
}

// corrupt describes an asset that is not what was packed. got and cause may be missing.
func corrupt(asset, want, got string, cause error) error {
	text := fmt.Sprintf("asset %q of the k0s executable is corrupt: expected sha256 %s", asset, want)
	if got != "" {
		text += ", got " + got
	}
	if cause != nil {
		return fmt.Errorf("%s (%w): %s", text, cause, damaged)
	}
	return fmt.Errorf("%s: %s", text, damaged)
}

func hexSum(sum hash.Hash) string { return hex.EncodeToString(sum.Sum(nil)) }
