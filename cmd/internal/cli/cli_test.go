package cli

import (
	"maps"
	"testing"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
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
		{"--a=b<c --d", nil, false},
		{"--a=b --c=d;e", nil, false},
		{"&", nil, false},
		{`--a='b<c' --d="e;f"`, map[string]string{"a": "b<c", "d": "e;f"}, true},
	} {
		got, err := ExtraArgs("--kubelet-extra-args", tc.in, "kubelet", nil)
		if (err == nil) != tc.ok || (tc.ok && !maps.Equal(got, tc.want)) {
			t.Errorf("%q: got %q, %v", tc.in, got, err)
		}
	}
}

// knownFlags are Programs that know flags only.
type knownFlags struct {
	v1beta1.Programs
	flags map[string][]string
}

func (k knownFlags) Flags(program string) []string { return k.flags[program] }

func (knownFlags) CheckFlags(_ string, values map[string]string) map[string]string {
	if values["max-pods"] == "lots" {
		return map[string]string{"max-pods": "must be a whole number"}
	}
	return nil
}

func TestUnknownExtraArgs(t *testing.T) {
	programs := knownFlags{flags: map[string][]string{"kubelet": {"max-pods", "node-ip"}}}
	if got, err := ExtraArgs("--kubelet-extra-args", "--max-pods=7", "kubelet", programs); err != nil || got["max-pods"] != "7" {
		t.Errorf("got %q, %v", got, err)
	}
	const want = `--kubelet-extra-args: --max-podz: kubelet has no such flag: did you mean "max-pods"?`
	if _, err := ExtraArgs("--kubelet-extra-args", "--node-ip=192.0.2.1 --max-podz 7", "kubelet", programs); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	const wrong = "--kubelet-extra-args: --max-pods=lots: must be a whole number"
	if _, err := ExtraArgs("--kubelet-extra-args", "--max-pods=lots", "kubelet", programs); err == nil || err.Error() != wrong {
		t.Errorf("got %v, want %s", err, wrong)
	}
	if _, err := ExtraArgs("--x", "--what=ever", "unknown", programs); err != nil {
		t.Error(err)
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
