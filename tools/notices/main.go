// Notices writes down whose work the k0s executable contains, and on what terms: a table,
// which is committed, and the full texts, which go along with the executable.
//
//	notices -table THIRD_PARTY_NOTICES.md -text build/THIRD_PARTY_NOTICES.txt -packages packages.tsv -copyright DIR PROGRAM…
//
// A PROGRAM is folder:cgo:tags:package, the way it is built (cgo is 0 or 1). The Debian packages are listed in
// packages.tsv (name, version, source package, its version); their terms lie in DIR.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("notices: ")
	table := flag.String("table", "", "`file` for the table")
	text := flag.String("text", "", "`file` for the full texts")
	packages := flag.String("packages", "", "`file` which lists the Debian packages")
	copyright := flag.String("copyright", "", "`directory` with the terms of the Debian packages")
	flag.Parse()
	if err := run(*table, *text, *packages, *copyright, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(table, text, packageList, copyright string, programs []string) error {
	works, err := goWorks(programs)
	if err != nil {
		return err
	}
	packed, err := packedWorks(packageList, copyright)
	if err != nil {
		return err
	}
	linked, err := linkedWorks()
	if err != nil {
		return err
	}
	if err := os.WriteFile(table, renderTable(works, packed), 0o644); err != nil {
		return err
	}
	if text == "" {
		return nil
	}
	full, err := renderText(works, packed, linked)
	if err != nil {
		return err
	}
	return os.WriteFile(text, full, 0o644)
}

// work is something of others that k0s contains.
type work struct {
	name, version string
	terms         string   // SPDX expression
	source        string   // Debian source package and its version, if that is where it is from
	texts         []string // licences and notices
}

// --- Go modules

// listed is what `go list` says about a package.
type listed struct {
	Dir    string
	Module *struct {
		Path, Version, Dir string
		Main               bool
		Replace            *struct{ Path, Version, Dir string }
	}
}

func goWorks(programs []string) ([]work, error) {
	type module struct {
		path, version string
	}
	texts := map[module]map[string]bool{} // module → names of files
	for _, program := range programs {
		part := strings.SplitN(program, ":", 4)
		if len(part) != 4 {
			return nil, fmt.Errorf("program %q: want folder:cgo:tags:package", program)
		}
		packages, err := list(part[0], part[1], part[2], part[3])
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			// Modules of our own are under our own licence.
			if p.Module == nil || p.Module.Main || strings.HasPrefix(p.Module.Path, "k0s.io/k0s/") || p.Module.Version == "" && p.Module.Replace == nil {
				continue // of the standard library, or ours
			}
			root, key := p.Module.Dir, module{p.Module.Path, p.Module.Version}
			if r := p.Module.Replace; r != nil {
				root, key = r.Dir, module{r.Path, r.Version}
			}
			if texts[key] == nil {
				texts[key] = map[string]bool{}
			}
			names, err := licenceFiles(p.Dir, root)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				texts[key][name] = true
			}
		}
	}
	var works []work
	for module, names := range texts {
		w, err := newWork(module.path, module.version, names)
		if err != nil {
			return nil, err
		}
		works = append(works, w)
	}
	standard, err := goItself()
	if err != nil {
		return nil, err
	}
	works = append(works, standard)
	slices.SortFunc(works, func(a, b work) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.version, b.version))
	})
	return works, nil
}

func list(folder, cgo, tags, name string) ([]listed, error) {
	cmd := exec.Command("go", "list", "-deps", "-tags", tags, "-json=Dir,Module", name)
	cmd.Dir, cmd.Stderr = folder, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", cmd, folder, err)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", cmd, err)
		}
		packages = append(packages, p)
	}
}

var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|unlicense|patents)([-_.].*)?$`)

// licenceFiles looks in the directory of a package and in all above it, up to the root of
// its module.
func licenceFiles(dir, root string) ([]string, error) {
	var names []string
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if entry.Type().IsRegular() && licenceName.MatchString(entry.Name()) && filepath.Ext(entry.Name()) != ".go" {
				names = append(names, filepath.Join(dir, entry.Name()))
			}
		}
		if dir == root || len(dir) <= len(root) {
			return names, nil
		}
		dir = filepath.Dir(dir)
	}
}

func newWork(name, version string, files map[string]bool) (work, error) {
	w := work{name: name, version: version}
	kinds := map[string]bool{}
	sorted := make([]string, 0, len(files))
	for file := range files {
		sorted = append(sorted, file)
	}
	slices.Sort(sorted)
	for _, file := range sorted {
		text, err := os.ReadFile(file)
		if err != nil {
			return w, err
		}
		w.texts = append(w.texts, tidy(text))
		for _, match := range licensecheck.Scan(text).Match {
			// A grant of patents beside a licence takes nothing from it.
			if !match.IsURL && match.ID != "GooglePatentsFile" {
				kinds[match.ID] = true
			}
		}
	}
	if len(kinds) == 0 {
		return w, fmt.Errorf("no licence found for %s %s (looked at %v): it must not go into k0s unseen", name, version, sorted)
	}
	var ids []string
	for id := range kinds {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	w.terms = strings.Join(ids, " AND ")
	return w, nil
}

func goItself() (work, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return work{}, fmt.Errorf("go env GOROOT: %w", err)
	}
	files := map[string]bool{}
	for _, name := range []string{"LICENSE", "PATENTS"} {
		files[filepath.Join(strings.TrimSpace(string(root)), name)] = true
	}
	// Its version is that of go.mod at least; the table must not depend on who builds.
	return newWork("Go standard library", "", files)
}

// --- Debian packages

// terms of the source packages, as their copyright files have it for what we take.
var terms = map[string]string{
	"glibc":                  "LGPL-2.1-or-later",
	"gmp":                    "LGPL-3.0-or-later OR GPL-2.0-or-later",
	"iptables":               "GPL-2.0-or-later",
	"jansson":                "MIT",
	"libbsd":                 "BSD-3-Clause AND BSD-2-Clause AND ISC AND MIT",
	"libedit":                "BSD-3-Clause",
	"libmd":                  "BSD-3-Clause AND BSD-2-Clause AND ISC AND Beerware",
	"libmnl":                 "LGPL-2.1-or-later",
	"libnetfilter-conntrack": "GPL-2.0-or-later",
	"libnfnetlink":           "GPL-2.0-only",
	"libnftnl":               "GPL-2.0-or-later",
	"libseccomp":             "LGPL-2.1-only",
	"musl":                   "MIT",
	"ncurses":                "X11-distribute-modifications-variant",
	"nftables":               "GPL-2.0-only",
}

// packedWorks are the packages out of which the packet filter tools are made.
func packedWorks(packageList, copyright string) ([]work, error) {
	file, err := os.Open(packageList)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var works []work
	for lines := bufio.NewScanner(file); lines.Scan(); {
		field := strings.Split(lines.Text(), "\t")
		if len(field) != 4 {
			return nil, fmt.Errorf("%s: line %q: want four fields", packageList, lines.Text())
		}
		w, err := debianWork(field[0], field[1], field[2], field[3], filepath.Join(copyright, field[0]))
		if err != nil {
			return nil, err
		}
		works = append(works, w)
	}
	return works, nil
}

// linkedWorks are the libraries of the building machine which are linked statically into
// runc (libc, libseccomp) and into the launcher and pause (musl).
func linkedWorks() ([]work, error) {
	var works []work
	for _, name := range []string{"libc6-dev", "libseccomp-dev", "musl-dev"} {
		output, err := exec.Command("dpkg-query", "--show",
			"--showformat=${Version}\t${source:Package}\t${source:Version}\n", name).Output()
		if err != nil {
			return nil, fmt.Errorf("asking dpkg for the version of %s: %w", name, err)
		}
		line, _, _ := strings.Cut(string(output), "\n")
		field := strings.Split(line, "\t")
		w, err := debianWork(name, field[0], field[1], field[2], filepath.Join("/usr/share/doc", name, "copyright"))
		if err != nil {
			return nil, err
		}
		works = append(works, w)
	}
	return works, nil
}

func debianWork(name, version, source, sourceVersion, copyright string) (work, error) {
	text, err := os.ReadFile(copyright)
	if err != nil {
		return work{}, err
	}
	if terms[source] == "" {
		return work{}, fmt.Errorf("the terms of Debian's %s are not known yet: read %s and add them to tools/notices", source, copyright)
	}
	return work{
		name: name, version: version, terms: terms[source], source: source + " " + sourceVersion, texts: []string{tidy(text)},
	}, nil
}

// --- output

const sourceOffer = `The Debian packages are redistributed as Debian built them. Their corresponding source is
the source package named beside each one, in the same version: ` + "`apt-get source NAME=VERSION`" + `
fetches it from any Debian mirror with deb-src, and Debian's snapshot archive keeps every
version that ever was. Whoever gets k0s from you may ask you for the same source.
`

func renderTable(works, packed []work) []byte {
	var out bytes.Buffer
	out.WriteString("<!-- Written by `make notices`. -->\n# Third-party notices\n\n" +
		"k0s is under the Apache License 2.0 (LICENSE). It contains the work of others, listed here with\n" +
		"the terms found in it. `make notices` also writes build/THIRD_PARTY_NOTICES.txt, the full texts,\n" +
		"which go along with every executable that is given away.\n\n## Go modules\n\n| module | version | terms |\n|---|---|---|\n")
	for _, w := range works {
		fmt.Fprintf(&out, "| %s | %s | %s |\n", w.name, w.version, w.terms)
	}
	// Without versions: a build takes a newer package where the mirror has dropped the
	// locked one, which must not make this table wrong.
	out.WriteString("\n## Debian packages\n\nThe packet filter tools are made of these, in the versions of embedded-bins/pf/packages.lock;\n" +
		"the full texts name the versions that were used.\n\n" +
		"| package | terms | source package |\n|---|---|---|\n")
	for _, w := range packed {
		source, _, _ := strings.Cut(w.source, " ")
		fmt.Fprintf(&out, "| %s | %s | %s |\n", w.name, w.terms, source)
	}
	out.WriteString("\n" + sourceOffer + "\nLinked statically, from the Debian system that builds k0s (the full notices name the versions): into\n" +
		"runc glibc (" + terms["glibc"] + ") and libseccomp (" + terms["libseccomp"] + "); into pause and the launcher of the packet\n" +
		"filter tools musl (" + terms["musl"] + "). To use changed versions of these libraries, install them and run\n`make build`.\n")
	return out.Bytes()
}

// renderText has every text once, below the names of all works that came with it.
func renderText(works, packed, linked []work) ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, "THIRD-PARTY NOTICES OF K0S\n\nBuilt with %s. What k0s contains, and on what terms:\n\n", runtime.Version())
	all := slices.Concat(works, packed, linked)
	for _, w := range all {
		fmt.Fprintf(&out, "%s %s: %s", w.name, w.version, w.terms)
		if w.source != "" {
			fmt.Fprintf(&out, " (source package %s)", w.source)
		}
		out.WriteString("\n")
	}
	out.WriteString("\n" + sourceOffer)

	users := map[string][]string{}
	var order []string
	for _, w := range all {
		for _, text := range w.texts {
			if users[text] == nil {
				order = append(order, text)
			}
			users[text] = append(users[text], w.name)
		}
	}
	for _, text := range order {
		names := slices.Compact(users[text])
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(names, "\n"), text)
	}
	// Debian's copyright files refer to these instead of repeating them.
	for _, name := range []string{"GPL-2", "GPL-3", "LGPL-2.1", "LGPL-3"} {
		text, err := os.ReadFile(filepath.Join("/usr/share/common-licenses", name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), name, tidy(text))
	}
	return out.Bytes(), nil
}

// tidy makes texts equal that differ in white space at the ends of lines only.
func tidy(text []byte) string {
	lines := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}
