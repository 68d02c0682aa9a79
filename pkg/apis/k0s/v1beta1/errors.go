package v1beta1

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	// Line in the file, from 1; 0 if not known or not in the file.
	Line int
	// Path of the field, such as spec.api.port; empty for the whole file.
	Path string
	// Value found there; nil if it does not matter.
	Value any
	// Reason is what is wrong with it, or what it must be.
	Reason string
}

// String returns path, value and reason.
func (p Problem) String() string {
	s := p.Reason
	switch v := p.Value.(type) {
	case nil:
	case int, int32, int64, bool:
		s = fmt.Sprintf("invalid value %v: %s", v, s)
	default:
		s = fmt.Sprintf("invalid value %q: %s", fmt.Sprint(v), s)
	}
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	return s
}

// Error is everything wrong with one configuration.
type Error struct {
	// File is where the configuration came from; empty if not from a file.
	File string
	// Problems in the order of the file; never empty.
	Problems []Problem
}

// Error returns one line per problem: file:line: path: value and reason.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		where := e.File
		if p.Line > 0 {
			if where == "" {
				where = "line "
			} else {
				where += ":"
			}
			where += fmt.Sprint(p.Line)
		}
		if where != "" {
			where += ": "
		}
		lines = append(lines, where+p.String())
	}
	return strings.Join(lines, "\n")
}

// problemsOf turns validation errors into problems; lines may be nil.
func problemsOf(errs field.ErrorList, lines map[string]int) []Problem {
	var problems []Problem
	for _, err := range errs {
		p := Problem{Line: lineOf(err.Field, lines), Path: err.Field, Value: err.BadValue, Reason: err.Detail}
		switch err.Type {
		case field.ErrorTypeRequired:
			p.Value, p.Reason = nil, "required: "+err.Detail
		case field.ErrorTypeForbidden:
			p.Value = nil
		}
		problems = append(problems, p)
	}
	return problems
}

// lineOf is the line of a path, or of the section it would belong to.
func lineOf(path string, lines map[string]int) int {
	for {
		if line := lines[path]; line > 0 {
			return line
		}
		end := strings.LastIndexAny(path, ".[")
		if end < 0 {
			return 0
		}
		path = path[:end]
	}
}
