// Package flags turns settings into a program's command line.
package flags

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// Args are flags by name, without the leading dashes.
type Args map[string]string

// WithFeatureGates adds --feature-gates, if there are any gates.
func (a Args) WithFeatureGates(gates map[string]bool) Args {
	if len(gates) > 0 {
		a[v1beta1.FeatureGatesFlag] = featureGates(gates)
	}
	return a
}

// Compute returns the command line: what k0s sets, overridden by the user's extraArgs, in
// alphabetical order, followed by the user's rawArgs as they stand (so they may repeat flags).
// Of feature gates, extraArgs override only those they name.
func Compute(ours Args, extraArgs map[string]string, rawArgs []string) []string {
	all := maps.Clone(ours)
	if all == nil {
		all = Args{}
	}
	maps.Copy(all, extraArgs)
	if gates, ok := addFeatureGates(ours[v1beta1.FeatureGatesFlag], extraArgs[v1beta1.FeatureGatesFlag]); ok {
		all[v1beta1.FeatureGatesFlag] = gates
	}
	var line []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		line = append(line, "--"+name+"="+all[name])
	}
	return append(line, rawArgs...)
}

// addFeatureGates is false if there is nothing to add, or nothing that can be read.
func addFeatureGates(ours, extra string) (string, bool) {
	if ours == "" || extra == "" {
		return "", false
	}
	gates, err := v1beta1.ParseFeatureGates(ours)
	if err != nil {
		return "", false
	}
	more, err := v1beta1.ParseFeatureGates(extra)
	if err != nil {
		return "", false // the program will say so
	}
	maps.Copy(gates, more)
	return featureGates(gates), true
}

func featureGates(gates map[string]bool) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		list = append(list, fmt.Sprintf("%s=%t", name, gates[name]))
	}
	return strings.Join(list, ",")
}
