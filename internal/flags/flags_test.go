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
		{"raw comes last and may repeat", Args{"v": "1"}, nil, []string{"--v=3", "--v=4"}, []string{"--v=1", "--v=3", "--v=4"}},
	} {
		if got := Compute(tc.ours, tc.extra, tc.raw); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
