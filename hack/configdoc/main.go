// Configdoc writes what is generated from the types of k0s.yaml: the default
// files, the JSON schema and docs/configuration.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// api is where the types are, from the repository's root.
const api = "pkg/apis/k0s/v1beta1"

func main() {
	root := flag.String("root", ".", "the repository's root")
	out := flag.String("out", "", "where to write, as if it were the root (default: the root)")
	flag.Parse()
	if *out == "" {
		*out = *root
	}
	if err := write(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func write(root, out string) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	for name, content := range files {
		name = filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the files by their path from the root.
func generate(root string) (map[string][]byte, error) {
	spec, err := readTree(filepath.Join(root, api))
	if err != nil {
		return nil, err
	}
	schema, err := jsonSchema(spec)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		api + "/default.yaml":        defaultFile(spec, false),
		api + "/default-images.yaml": defaultFile(spec, true),
		"docs/k0s.schema.json":       schema,
		"docs/configuration.md":      reference(spec),
	}, nil
}
