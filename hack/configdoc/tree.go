package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// entry is a field with its explanation and the fields below it.
type entry struct {
	v1beta1.Field
	key      string // its name in k0s.yaml
	doc      string // its comment, and what the comment of its type adds; one paragraph
	children []*entry
}

// readTree joins the fields with the comments in the package's directory. The
// result stands for spec.
func readTree(dir string) (*entry, error) {
	docs, err := readComments(dir)
	if err != nil {
		return nil, err
	}
	spec := &entry{key: "spec"}
	spec.Path, spec.Section, spec.Type = "spec", true, reflect.TypeFor[v1beta1.ClusterSpec]()
	byPath := map[string]*entry{"spec": spec}
	var missing []string
	for _, f := range v1beta1.Fields() {
		dot := strings.LastIndex(f.Path, ".")
		parent := byPath[strings.TrimSuffix(f.Path[:dot], "[]")]
		e := &entry{Field: f, key: f.Path[dot+1:]}
		comment := docs[f.Owner.Name()+"."+f.Name]
		if comment == "" {
			missing = append(missing, f.Owner.Name()+"."+f.Name)
		}
		e.doc = explain(comment, f.Name, e.key)
		if f.Section {
			// The first sentence about the type says what that about the field says.
			_, more := firstSentence(docs[itemType(f.Type).Name()])
			e.doc = strings.TrimSpace(e.doc + " " + more)
		}
		parent.children = append(parent.children, e)
		byPath[f.Path] = e
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("fields without a comment: %s", strings.Join(slices.Compact(missing), ", "))
	}
	return spec, nil
}

// readComments returns the comments of types (Type) and their fields
// (Type.Field), each as one paragraph.
func readComments(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no Go files in %s: %w; -root must be the repository's", dir, fs.ErrNotExist)
	}
	docs := map[string]string{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, declaration := range parsed.Decls {
			if general, ok := declaration.(*ast.GenDecl); ok && general.Tok == token.TYPE {
				commentsOf(general, docs)
			}
		}
	}
	return docs, nil
}

func commentsOf(declaration *ast.GenDecl, docs map[string]string) {
	for _, spec := range declaration.Specs {
		spec := spec.(*ast.TypeSpec)
		comment := spec.Doc
		if comment == nil {
			comment = declaration.Doc
		}
		docs[spec.Name.Name] = paragraph(comment)
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, field := range structure.Fields.List {
			for _, name := range field.Names {
				docs[spec.Name.Name+"."+name.Name] = paragraph(field.Doc)
			}
		}
	}
}

func paragraph(comment *ast.CommentGroup) string {
	return strings.Join(strings.Fields(comment.Text()), " ")
}

// itemType is a type without pointers and lists around it.
func itemType(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

func (e *entry) isList() bool { return e.Type.Kind() == reflect.Slice }

// live tells whether setting the field can do anything.
func (e *entry) live() bool { return e.status() == "" }

// status is why setting the field does nothing: later, never or gone, as in its
// tag; empty if it does something. A section is what its switch is, or what all
// its fields are.
func (e *entry) status() string {
	for _, tag := range []string{"later", "never", "gone"} {
		if _, ok := e.Tag.Lookup(tag); ok {
			return tag
		}
	}
	if len(e.children) == 0 {
		return ""
	}
	status := "gone"
	for _, child := range e.children {
		own := child.status()
		if child.key == "enabled" && own != "" {
			return own
		}
		if own == "" {
			status = ""
		} else if status == "gone" {
			status = own
		}
	}
	return status
}
