package manifests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// isManifest says by its name whether a file in a stack directory counts.
// Hidden files are what editors leave behind.
func isManifest(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// stackFiles is what a stack directory says at one moment.
type stackFiles struct {
	stack    Stack
	warnings []string
	// written is when the youngest of the files was last written.
	written time.Time
}

// readStack reads the stack kept in dir: all manifests directly in it, in the
// order of their names. Symbolic links to files are followed. One file that
// cannot be read or parsed makes the whole of it an error, so that a broken
// file never looks like one that has been emptied.
func readStack(dir string) (stackFiles, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return stackFiles{}, err
	}
	out := stackFiles{stack: Stack{Name: filepath.Base(dir)}}
	var errs []error
	for _, entry := range entries {
		if !isManifest(entry.Name()) {
			continue
		}
		file := filepath.Join(dir, entry.Name())
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) && entry.Type()&fs.ModeSymlink == 0 {
			continue // removed since the directory was read
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !info.Mode().IsRegular() {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		objects, warnings, err := Parse(file, data)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out.stack.Objects = append(out.stack.Objects, objects...)
		out.warnings = append(out.warnings, warnings...)
		if info.ModTime().After(out.written) {
			out.written = info.ModTime()
		}
	}
	if len(errs) > 0 {
		return stackFiles{}, fmt.Errorf("manifests of stack %s cannot be used, so it stays as it was: %w", out.stack.Name, errors.Join(errs...))
	}
	return out, nil
}

// lacks says whether next has lost an object that prev has.
func lacks(next, prev Stack) bool {
	type key struct{ apiVersion, kind, namespace, name string }
	keyOf := func(o Object) key { return key{o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName()} }
	have := map[key]bool{}
	for _, o := range next.Objects {
		have[keyOf(o)] = true
	}
	return slices.ContainsFunc(prev.Objects, func(o Object) bool { return !have[keyOf(o)] })
}
