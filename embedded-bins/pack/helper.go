package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"k0s.io/k0s/internal/assets"
)

// packHelper compresses the files of a tree, one after another in the order of their
// names, into out/name.zst.
func packHelper(name, tree, out string) (assets.Helper, error) {
	packed := assets.Helper{Name: name, Archive: name + ".zst"}
	var content bytes.Buffer
	err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		if entry.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			packed.Links = append(packed.Links, assets.Link{Name: relative, Target: target})
			return err
		}
		if !entry.Type().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a symbolic link", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content.Write(data)
		packed.Files = append(packed.Files, assets.File{
			Name: relative, Mode: plainMode(info), Size: int64(len(data)), SHA256: hexSum(data),
		})
		return nil
	})
	if err != nil {
		return packed, err
	}
	if len(packed.Files) == 0 {
		return packed, fmt.Errorf("there are no files in %s", tree)
	}
	compressed, err := compress(&content)
	if err != nil {
		return packed, err
	}
	return packed, os.WriteFile(filepath.Join(out, packed.Archive), compressed, 0o644)
}

// plainMode does not depend on the umask of who builds.
func plainMode(info fs.FileInfo) fs.FileMode {
	if info.Mode()&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

// compress uses the zstd program: at its level 19 the result is about a tenth smaller
// than what Go's implementation reaches.
func compress(content io.Reader) ([]byte, error) {
	var out, stderr bytes.Buffer
	cmd := exec.Command("zstd", "-19", "--single-thread", "--quiet", "--stdout")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = content, &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cmd, err, stderr.Bytes())
	}
	return out.Bytes(), nil
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
