package flags

import (
	"slices"
	"testing"
)

func TestCompute(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ours  Args
		extra map[string]string
		raw   []string
		want  []string
	}{
		{"nothing", nil, nil, nil, nil},
		{"sorted", Args{"v": "1", "bind-address": "::"}, nil, nil, []string{"--bind-address=::", "--v=1"}},
		{"extra overrides and adds", Args{"v": "1"}, map[string]string{"v": "2", "a": ""}, nil, []string{"--a=", "--v=2"}},
		{"feature gates add up", Args{"feature-gates": "A=true,B=true"}, map[string]string{"feature-gates": "C=false,kube:B=false"}, nil, []string{"--feature-gates=A=true,B=false,C=false"}},
		{"feature gates of the user only", nil, map[string]string{"feature-gates": "kube:A=true"}, nil, []string{"--feature-gates=kube:A=true"}},
		{"feature gates that are none", Args{"feature-gates": "A=true"}, map[string]string{"feature-gates": "A"}, nil, []string{"--feature-gates=A"}},
		{"raw comes last and may repeat", Args{"v": "1"}, nil, []string{"--v=3", "--v=4"}, []string{"--v=1", "--v=3", "--v=4"}},
	} {
		if got := Compute(tc.ours, tc.extra, tc.raw); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestWithFeatureGates(t *testing.T) {
	if got := Compute(Args{"v": "1"}.WithFeatureGates(nil), nil, nil); !slices.Equal(got, []string{"--v=1"}) {
		t.Errorf("no gates: got %q", got)
	}
	got := Compute(Args{}.WithFeatureGates(map[string]bool{"B": false, "A": true}), nil, nil)
	if !slices.Equal(got, []string{"--feature-gates=A=true,B=false"}) {
		t.Errorf("got %q", got)
	}
}
