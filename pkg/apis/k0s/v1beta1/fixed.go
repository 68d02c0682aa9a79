package v1beta1

import (
	"fmt"
	"reflect"
)

// Fixed returns the values of the fields that are fixed when a cluster is
// founded, by path; those of sections that are left out are empty.
func (c *ClusterConfig) Fixed() map[string]string {
	values := map[string]string{}
	for _, f := range Fields() {
		if f.Change() == "redeploy" {
			values[f.Path] = ""
		}
	}
	c.visit(func(path string, f structField, value, _ reflect.Value) {
		if _, ok := values[path]; ok {
			values[path] = fmt.Sprint(reflect.Indirect(value).Interface())
		}
	})
	// Left empty, the family follows from the addresses.
	values["spec.network.primaryAddressFamily"] = string(c.PrimaryFamily())
	return values
}

// CheckFixed compares with the values of [ClusterConfig.Fixed] that were
// recorded when the cluster was founded. Fields that were not there at that
// time may have any value. The error is an *[Error].
func (c *ClusterConfig) CheckFixed(founded map[string]string) error {
	now := c.Fixed()
	var problems []Problem
	for _, f := range Fields() {
		was, recorded := founded[f.Path]
		if is, there := now[f.Path]; recorded && there && is != was {
			problems = append(problems, Problem{Path: f.Path, Value: is, Reason: fmt.Sprintf(
				"this cluster was founded with %q, and only a new cluster can have another value: put %q into k0s.yaml; "+
					"or take down the workloads, run `k0s reset`, which gives up the cluster's data, and start anew", was, was)})
		}
	}
	if len(problems) > 0 {
		return &Error{Problems: problems}
	}
	return nil
}
