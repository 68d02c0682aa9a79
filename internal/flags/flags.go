// Package flags turns settings into a program's command line.
package flags

import (
	"maps"
	"slices"
)

// Args are flags by name, without the leading dashes.
type Args map[string]string

// Compute returns the command line: what k0s sets, overridden by the user's extraArgs, in
// alphabetical order, followed by the user's rawArgs as they stand (so they may repeat flags).
func Compute(ours Args, extraArgs map[string]string, rawArgs []string) []string {
	all := maps.Clone(ours)
	if all == nil {
		all = Args{}
	}
	maps.Copy(all, extraArgs)
	var line []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		line = append(line, "--"+name+"="+all[name])
	}
	return append(line, rawArgs...)
}
