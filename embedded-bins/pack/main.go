// Pack makes what k0s embeds out of what has been built. The same input always gives the
// same bytes. The Makefile calls it thus:
//
//	pack helper -name N -version PROGRAM=V,… -out DIR TREE
//	    packs the files and links of TREE into DIR/N.zst
//	pack image -name N -version V -ref REF -out DIR [-entrypoint …] [-user …] TREE
//	    makes DIR/N.tar, an OCI image archive whose only layer is TREE
//	pack index -out DIR FRAGMENT…
//	    gathers what the other two made, by their fragments (DIR/N.json), into DIR
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"k0s.io/k0s/internal/assets"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("pack: ")
	if len(os.Args) < 2 {
		log.Fatal("what to do? one of: helper, image, index")
	}
	var err error
	switch verb, args := os.Args[1], os.Args[2:]; verb {
	case "helper":
		err = helper(args)
	case "image":
		err = image(args)
	case "index":
		err = index(args)
	default:
		err = fmt.Errorf("unknown verb %q: want helper, image or index", verb)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func helper(args []string) error {
	flags := flag.NewFlagSet("helper", flag.ExitOnError)
	name := flags.String("name", "", "name of the helper")
	version := flags.String("version", "", "versions of its programs: `program=version,…`")
	out := flags.String("out", "", "`directory` for the archive and its fragment of the index")
	if err := flags.Parse(args); err != nil {
		return err
	}
	versions, err := parseVersions(*version)
	if err != nil {
		return err
	}
	packed, err := packHelper(*name, flags.Arg(0), *out)
	if err != nil {
		return fmt.Errorf("packing helper %s: %w", *name, err)
	}
	packed.Versions = versions
	return writeFragment(*out, *name, assets.Index{Helpers: []assets.Helper{packed}})
}

func parseVersions(list string) (map[string]string, error) {
	versions := map[string]string{}
	for _, item := range strings.Split(list, ",") {
		program, version, ok := strings.Cut(item, "=")
		if !ok || program == "" || version == "" {
			return nil, fmt.Errorf("-version %q: want program=version,…", list)
		}
		versions[program] = version
	}
	return versions, nil
}

func image(args []string) error {
	flags := flag.NewFlagSet("image", flag.ExitOnError)
	var spec imageSpec
	flags.StringVar(&spec.name, "name", "", "name of the program inside")
	flags.StringVar(&spec.version, "version", "", "version of the program inside")
	flags.StringVar(&spec.ref, "ref", "", "what the image is called")
	flags.StringVar(&spec.entrypoint, "entrypoint", "", "program to run, with its path in the image")
	flags.StringVar(&spec.user, "user", "", "user to run it as, if not root")
	flags.StringVar(&spec.architecture, "arch", "", "architecture, as Go calls it")
	out := flags.String("out", "", "`directory` for the archive and its fragment of the index")
	if err := flags.Parse(args); err != nil {
		return err
	}
	packed, err := packImage(spec, flags.Arg(0), *out)
	if err != nil {
		return fmt.Errorf("packing image %s: %w", spec.ref, err)
	}
	return writeFragment(*out, spec.name, assets.Index{Images: []assets.ImageEntry{packed}})
}

func writeFragment(dir, name string, fragment assets.Index) error {
	return writeJSON(filepath.Join(dir, name+".json"), fragment)
}

// index leaves in the output directory exactly what the fragments list, and the README.
func index(args []string) error {
	flags := flag.NewFlagSet("index", flag.ExitOnError)
	out := flags.String("out", "", "`directory` which is embedded")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var all assets.Index
	keep := map[string]bool{"README": true, assets.IndexName: true}
	for _, name := range flags.Args() {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var fragment assets.Index
		if err := json.Unmarshal(data, &fragment); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		var archives []string
		for _, helper := range fragment.Helpers {
			archives = append(archives, helper.Archive)
		}
		for _, image := range fragment.Images {
			archives = append(archives, image.Archive)
		}
		for _, archive := range archives {
			keep[archive] = true
			if err := copyFile(filepath.Join(filepath.Dir(name), archive), filepath.Join(*out, archive)); err != nil {
				return err
			}
		}
		all.Helpers = append(all.Helpers, fragment.Helpers...)
		all.Images = append(all.Images, fragment.Images...)
	}
	entries, err := os.ReadDir(*out)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !keep[entry.Name()] {
			if err := os.Remove(filepath.Join(*out, entry.Name())); err != nil {
				return err
			}
		}
	}
	return writeJSON(filepath.Join(*out, assets.IndexName), all)
}

// copyFile leaves an equal file alone: its time is what Go's build cache looks at first.
func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return os.WriteFile(to, data, 0o644)
}

func writeJSON(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(data, '\n'), 0o644)
}
