// Package component says what a component of k0s is, and runs a set of them.
//
// A component is a value: a name, the names it needs, and the verbs start, ready and stop. The
// engine starts everything whose needs are ready, in parallel, and stops in the reverse order.
package component

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Component is one part of a controller or a worker. Verbs that are nil have nothing to do.
type Component struct {
	// Name is unique within a Set.
	Name string
	// Start brings the component up and returns; what goes on running belongs to the component
	// until Stop. ctx ends when the engine gives up the start.
	Start func(ctx context.Context) error
	// Ready blocks until the component can serve those who need it. It returns an error only
	// when that will never be, or when ctx has ended.
	Ready func(ctx context.Context) error
	// Process tells of the child process that the component is; nil when it is none.
	Process func() Process
	// Trouble tells why a component that was started does not run right now, though it is going to
	// again; nil while it runs.
	Trouble func() error
	// Details is what else there is to know of the component while it runs, as JSON shows it; nil for nothing.
	Details func(ctx context.Context) any
	// Stop takes the component down. It is called once, also after a Start that failed half-way,
	// and must cope with that.
	Stop func(ctx context.Context) error

	needs []string
}

// Process is what is known of a supervised child.
type Process struct {
	// PID is 0 while the child is not running.
	PID      int       `json:"pid,omitempty"`
	Restarts int       `json:"restarts,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	LastExit string    `json:"lastExit,omitempty"`
}

// Needs returns the component with further needs: the names of components that must be ready
// before it starts, and that stop only after it has stopped.
func (c Component) Needs(names ...string) Component {
	c.needs = append(append([]string(nil), c.needs...), names...)
	return c
}

// Set is what a controller or a worker consists of.
type Set []Component

// Without returns the set less the named components; needs for them are dropped, too.
func (s Set) Without(names ...string) Set {
	gone := map[string]bool{}
	for _, name := range names {
		gone[name] = true
	}
	var left Set
	for _, c := range s {
		if gone[c.Name] {
			continue
		}
		var needs []string
		for _, need := range c.needs {
			if !gone[need] {
				needs = append(needs, need)
			}
		}
		c.needs = needs
		left = append(left, c)
	}
	return left
}

// check refuses sets that could never start: names used twice, needs nobody satisfies, circles.
func (s Set) check() error {
	byName := map[string]Component{}
	for _, c := range s {
		if _, twice := byName[c.Name]; twice {
			return fmt.Errorf("component %q is in the set twice", c.Name)
		}
		byName[c.Name] = c
	}
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(name string, path []string) error
	visit = func(name string, path []string) error {
		path = append(path, name)
		switch state[name] {
		case done:
			return nil
		case visiting:
			return fmt.Errorf("components need each other in a circle: %s", strings.Join(path, " → "))
		}
		state[name] = visiting
		for _, need := range byName[name].needs {
			if _, ok := byName[need]; !ok {
				return fmt.Errorf("component %q needs %q, which is not in the set", name, need)
			}
			if err := visit(need, path); err != nil {
				return err
			}
		}
		state[name] = done
		return nil
	}
	for _, c := range s {
		if err := visit(c.Name, nil); err != nil {
			return err
		}
	}
	return nil
}
