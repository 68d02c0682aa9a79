package process

import (
	"context"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/probe"
)

// Component is a component that is one supervised child: spec is called when its needs are ready and
// says how to run it, ready (nil: at once) checks once whether it serves.
func Component(name string, spec func() (Spec, error), ready func(context.Context) error) component.Component {
	var running *Process
	return component.Component{
		Name: name,
		Start: func(context.Context) error {
			s, err := spec()
			if err != nil {
				return err
			}
			s.Name = name
			running, err = Start(s)
			return err
		},
		Ready: func(ctx context.Context) error {
			if ready == nil {
				return nil
			}
			return probe.Until(ctx, ready, running.Broken)
		},
		Process: func() component.Process {
			if running == nil {
				return component.Process{}
			}
			return running.Info()
		},
		Stop: func(ctx context.Context) error {
			if running == nil {
				return nil
			}
			return running.Stop(ctx)
		},
	}
}
