package process

import (
	"context"
	"sync/atomic"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/probe"
)

// Component is a component that is one supervised child: spec is called when its needs are ready and
// says how to run it, ready (nil: at once) checks once whether it serves.
func Component(name string, spec func() (Spec, error), ready func(context.Context) error) component.Component {
	var running atomic.Pointer[Process] // the status may be asked for at any time
	return component.Component{
		Name: name,
		Start: func(context.Context) error {
			s, err := spec()
			if err != nil {
				return err
			}
			s.Name = name
			p, err := Start(s)
			if err != nil {
				return err
			}
			running.Store(p)
			return nil
		},
		Ready: func(ctx context.Context) error {
			if ready == nil {
				return nil
			}
			p := running.Load()
			return probe.Until(ctx, func(ctx context.Context) error {
				err := ready(ctx)
				if err != nil && p.spec.Patient {
					err = p.whatItSays(err)
				}
				return err
			}, p.Broken)
		},
		Process: func() component.Process {
			if p := running.Load(); p != nil {
				return p.Info()
			}
			return component.Process{}
		},
		Stop: func(ctx context.Context) error {
			if p := running.Load(); p != nil {
				return p.Stop(ctx)
			}
			return nil
		},
	}
}
