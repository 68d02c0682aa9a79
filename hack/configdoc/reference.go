package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
)

//go:embed introduction.md
var introduction string

// patches is the type that several sections have lists of. It is explained once.
const patches = "Patch"

// reference is docs/configuration.md: the introduction and every field.
func reference(spec *entry) []byte {
	var live, later []*entry // the sections that get a heading
	var gone []*entry        // what has no effect
	var collect func(e *entry)
	collect = func(e *entry) {
		for _, child := range e.children {
			switch {
			case itemType(child.Type).Name() == patches:
			case child.status() == "gone":
				gone = appendFields(gone, child)
			case child.Section && child.status() == "later":
				later = append(later, child)
				collectGone(child, &gone)
			case child.Section:
				if hasHeading(child) {
					live = append(live, child)
				}
				collect(child)
			}
		}
	}
	collect(spec)

	var b bytes.Buffer
	b.WriteString("<!-- Written by make generate from the types in pkg/apis/k0s/v1beta1 and from hack/configdoc/introduction.md. -->\n\n")
	b.WriteString(introduction)
	b.WriteString("\n## Fields\n\n")
	b.WriteString(links(live))
	for _, section := range live {
		writeSection(&b, section)
	}
	writePatches(&b, spec)

	b.WriteString("\n## Not supported yet\n\nThese are checked like all others. Only what asks for nothing is accepted: a default, an empty\nvalue, a switch that is off.\n\n")
	b.WriteString(links(later))
	for _, section := range later {
		writeSection(&b, section)
	}
	b.WriteString("\n## Accepted, without effect\n\nFiles written for other versions may have these. k0s warns of one that is set.\n\n| field | type | default | scope, change | because |\n|---|---|---|---|---|\n")
	for _, e := range gone {
		b.WriteString(cells(e.Path, e.kind(), e.defaultText(), e.scope(), markdown(e.Tag.Get("gone"))+"."+exampleOf(e)))
	}
	return b.Bytes()
}

// links leads to the sections.
func links(sections []*entry) string {
	var links []string
	for _, e := range sections {
		anchor := strings.ToLower(strings.ReplaceAll(e.Path, ".", ""))
		links = append(links, fmt.Sprintf("[%s](#%s)", strings.TrimPrefix(e.Path, "spec."), anchor))
	}
	return strings.Join(wrap(strings.Join(links, " · "), 100), "\n") + "\n"
}

const tableHead = "\n| field | type | default | scope, change | what it is |\n|---|---|---|---|---|\n"

// appendFields adds a field, or all those of a section.
func appendFields(fields []*entry, e *entry) []*entry {
	if len(e.children) == 0 {
		return append(fields, e)
	}
	for _, child := range e.children {
		fields = appendFields(fields, child)
	}
	return fields
}

func collectGone(e *entry, gone *[]*entry) {
	for _, child := range e.children {
		if child.status() == "gone" {
			*gone = appendFields(*gone, child)
		} else {
			collectGone(child, gone)
		}
	}
}

// hasHeading tells whether a section stands for itself; smaller ones are part of
// the section around them.
func hasHeading(e *entry) bool {
	depth := strings.Count(e.Path, ".")
	return depth == 1 && (e.isList() || e.hasFields()) || depth == 2 && (strings.HasPrefix(e.Path, "spec.network.") || strings.HasPrefix(e.Path, "spec.storage."))
}

// hasFields tells whether any row would stand in the section's table.
func (e *entry) hasFields() bool { return len(rows(e, "")) > 0 }

func writeSection(b *bytes.Buffer, e *entry) {
	path := e.Path
	if e.isList() {
		path += "[]"
	}
	fmt.Fprintf(b, "\n### %s\n\n%s\n", path, strings.Join(wrap(markdown(e.doc), 100), "\n"))
	table := rows(e, "")
	if e.isList() && e.live() {
		fmt.Fprintf(b, "\n```yaml\n%s:\n", e.key)
		writeExample(b, e.children, "")
		b.WriteString("```\n")
	}
	if len(table) == 0 {
		return
	}
	b.WriteString(tableHead)
	for _, row := range table {
		b.WriteString(row)
	}
}

// rows are a section's fields, with those of the sections in it that have no
// heading.
func rows(section *entry, prefix string) []string {
	var all []string
	for _, e := range section.children {
		name := prefix + e.key
		switch {
		case itemType(e.Type).Name() == patches && e.live():
			all = append(all, cells(name, "list of [patches](#patches)", "", e.scope(), markdown(e.doc)+exampleOf(e)))
		case itemType(e.Type).Name() == patches:
			all = append(all, row(e, name, section))
		case e.Section && section.live() && (e.status() != "" || hasHeading(e)), e.status() == "gone":
			// It is somewhere else.
		case e.isList() && e.Section:
			all = append(all, row(e, name, section))
			all = append(all, rows(e, name+"[].")...)
		case e.Section:
			all = append(all, cells(name, "mapping", "", "", markdown(e.doc)))
			all = append(all, rows(e, name+".")...)
		default:
			all = append(all, row(e, name, section))
		}
	}
	return all
}

func row(e *entry, name string, section *entry) string {
	text := markdown(e.doc)
	switch {
	case e.status() == "later" && section.live():
		text = "**Not supported yet.** " + text
	case e.status() == "never":
		text = "**Not supported.** " + text
	case !e.Section:
		text += exampleOf(e)
	}
	if values := e.Tag.Get("later"); values != "" {
		text += " Accepted already: `" + strings.ReplaceAll(values, ",", "`, `") + "`."
	}
	return cells(name, e.kind(), e.defaultText(), e.scope(), text)
}

func exampleOf(e *entry) string {
	return " Example: `" + strings.ReplaceAll(e.example(), "|", `\|`) + "`"
}

func cells(name, kind, standard, scope, text string) string {
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", name, kind, standard, scope, text)
}

func (e *entry) scope() string { return e.Scope() + ", " + e.Change() }

// defaultText is the default; empty if there is none.
func (e *entry) defaultText() string {
	value, ok := e.Tag.Lookup("default")
	switch {
	case ok && strings.ContainsAny(value, " <"):
		return markdown(value)
	case ok:
		return "`" + value + "`"
	case e.isSet():
		return "`" + inline(e.Default) + "`"
	case plainValue(e.Default) == int64(0), plainValue(e.Default) == "0s":
		return fmt.Sprintf("`%v`", plainValue(e.Default))
	}
	return ""
}

func writePatches(b *bytes.Buffer, spec *entry) {
	var used []string
	var shown *entry
	var find func(e *entry)
	find = func(e *entry) {
		for _, child := range e.children {
			if itemType(child.Type).Name() == patches && child.live() {
				used, shown = append(used, "`"+child.Path+"`"), child
			}
			find(child)
		}
	}
	find(spec)
	if shown == nil {
		return
	}
	fmt.Fprintf(b, "\n### Patches\n\nEach item changes one object of a component's manifests before it is applied. There are:\n%s.\n",
		strings.Join(used, ", "))
	fmt.Fprintf(b, "\n```yaml\n%s:\n", shown.key)
	writeExample(b, shown.children, "")
	b.WriteString("```\n" + tableHead)
	for _, row := range rows(shown, "") {
		b.WriteString(row)
	}
}
