package main

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// defaultFile is a k0s.yaml that asks for the defaults, with what else there is
// as comments.
func defaultFile(spec *entry, images bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# The configuration of k0s, with its defaults. What is left out or null has its
# default, so a short file will do. Behind a # are examples.
# Check a changed file with: k0s config validate --config FILE
apiVersion: %s
kind: %s
metadata:
  name: %s
spec:
`, v1beta1.APIVersion, v1beta1.Kind, v1beta1.Default().Name)
	w := defaultWriter{Buffer: &b, images: images, explained: map[string]bool{}}
	for i, section := range spec.children {
		if !section.live() {
			continue
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		w.write(section, "  ")
	}
	return b.Bytes()
}

type defaultWriter struct {
	*bytes.Buffer
	images    bool
	explained map[string]bool // fields of types that several sections have
}

func (w *defaultWriter) write(e *entry, indent string) {
	isImage := e.Type == reflect.TypeFor[v1beta1.Image]()
	if !e.live() || isImage && !w.images {
		return
	}
	if name := e.Owner.Name() + "." + e.Name; !w.explained[name] {
		w.explained[name] = true
		comment, _ := firstSentence(e.doc)
		for _, line := range wrap(strings.ReplaceAll(comment, "`", ""), 98-len(indent)) {
			fmt.Fprintf(w, "%s# %s\n", indent, line)
		}
	}
	switch {
	case e.Section && e.isList() && w.explained[itemType(e.Type).Name()]:
		fmt.Fprintf(w, "%s# %s: []\n", indent, e.key)
	case e.Section && e.isList():
		w.explained[itemType(e.Type).Name()] = true
		fmt.Fprintf(w, "%s# %s:\n", indent, e.key)
		writeExample(w.Buffer, e.children, indent+"# ")
	case e.Section:
		fmt.Fprintf(w, "%s%s:\n", indent, e.key)
		for _, child := range e.children {
			w.write(child, indent+"  ")
		}
	case e.isSet():
		fmt.Fprintf(w, "%s%s: %s\n", indent, e.key, inline(e.Default))
	default:
		fmt.Fprintf(w, "%s# %s: %s\n", indent, e.key, e.example())
	}
}

// writeExample writes an item of a list.
func writeExample(b *bytes.Buffer, fields []*entry, indent string) {
	dash := "- "
	for _, f := range fields {
		if f.Section {
			fmt.Fprintf(b, "%s%s%s:\n", indent, dash, f.key)
			for _, inner := range f.children {
				fmt.Fprintf(b, "%s    %s: %s\n", indent, inner.key, inner.example())
			}
		} else {
			fmt.Fprintf(b, "%s%s%s: %s\n", indent, dash, f.key, f.example())
		}
		dash = "  "
	}
}

// isSet tells whether the default says something; false does.
func (e *entry) isSet() bool {
	switch value := plainValue(e.Default).(type) {
	case nil:
		return false
	case string:
		return value != "" && value != "0s"
	case bool:
		return true
	case int64:
		return value != 0
	}
	return false
}
