package cli

import (
	"maps"
	"testing"
)

func TestExtraArgs(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want map[string]string
		ok   bool
	}{
		{"", map[string]string{}, true},
		{"--a=b --c d --e", map[string]string{"a": "b", "c": "d", "e": "true"}, true},
		{`  --a="x y"  --b=`, map[string]string{"a": "x y", "b": ""}, true},
		{`--node-labels 'a=1,b=2'`, map[string]string{"node-labels": "a=1,b=2"}, true},
		{"a=b", nil, false},
		{"-v 2", nil, false},
		{"--a 'b c' --d", map[string]string{"a": "b c", "d": "true"}, true},
		{`--a="open`, nil, false},
	} {
		got, err := ExtraArgs("--kubelet-extra-args", tc.in)
		if (err == nil) != tc.ok || (tc.ok && !maps.Equal(got, tc.want)) {
			t.Errorf("%q: got %q, %v", tc.in, got, err)
		}
	}
}

func TestLogLevels(t *testing.T) {
	levels, err := LogLevels(map[string]string{"kubelet": "5"})
	if err != nil || levels["kubelet"] != "5" || levels["etcd"] != "info" {
		t.Errorf("got %v, %v", levels, err)
	}
	if _, err := LogLevels(map[string]string{"kublet": "5"}); err == nil {
		t.Error("an unknown program must be refused")
	}
}
