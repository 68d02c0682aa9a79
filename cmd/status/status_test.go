package status

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/status"
)

var components = []component.Status{
	{Name: "certificates", State: component.Ready, StartedAt: time.Millisecond, ReadyAt: 51 * time.Millisecond},
	{Name: "etcd", State: component.Ready, Needs: []string{"certificates"}, StartedAt: 51 * time.Millisecond, ReadyAt: 1200 * time.Millisecond,
		WaitedFor: "certificates", Process: &component.Process{PID: 4711, Restarts: 1, LastExit: "signal: killed"}},
	{Name: "kube-apiserver", State: component.Starting, Needs: []string{"etcd"}, StartedAt: 1200 * time.Millisecond, WaitedFor: "etcd",
		Error: "waiting: GET https://127.0.0.1:6443/livez/ping: 500\nnot yet", Process: &component.Process{PID: 4712}},
	{Name: "kube-scheduler", State: component.Restarting, Process: &component.Process{Restarts: 7, LastExit: "exit status 1"}},
	{Name: "manifests", State: component.Waiting, Needs: []string{"api", "etcd"}},
}

// lines are those of a text, each without the blanks at its end.
func lines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

func TestWriteComponents(t *testing.T) {
	var out strings.Builder
	if err := writeComponents(&out, components); err != nil {
		t.Fatal(err)
	}
	const want = `NAME            STATE       PID   RESTARTS  REMARK
certificates    ready       -     -
etcd            ready       4711  1         ended before: signal: killed
kube-apiserver  starting    4712  0         waiting: GET https://127.0.0.1:6443/livez/ping: 500 not yet
kube-scheduler  restarting  -     7         ended before: exit status 1
manifests       waiting     -     -
`
	if got := lines(out.String()); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestWriteTimeline(t *testing.T) {
	var out strings.Builder
	if err := writeTimeline(&out, []component.Status{components[4], components[2], components[1], components[0]}); err != nil {
		t.Fatal(err)
	}
	const want = `COMPONENT       STARTED  READY   TOOK    AFTER WAITING FOR
certificates    0.001s   0.051s  0.050s
etcd            0.051s   1.200s  1.149s  certificates
manifests       -        -       -       api, etcd
kube-apiserver  1.200s   -       -       etcd
`
	if got := lines(out.String()); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestWrite(t *testing.T) {
	s := &status.Status{Version: "v1", Pid: 7, Role: "controller", Started: time.Now(), DataDir: "/d", ClusterID: "c",
		Warnings: []string{"it has cgroup v1 only"}, Components: components}
	for _, tc := range []struct {
		ready bool
		want  []string
	}{
		{false, []string{"Version: v1\n", "Process ID: 7\n", "Data directory: /d\n", "Warning: it has cgroup v1 only\n", "Components: not all ready\n", "kube-scheduler  restarting"}},
		{true, []string{"Components: all 5 ready\n"}},
	} {
		var out strings.Builder
		s.Ready = tc.ready
		if err := write(&out, s); err != nil {
			t.Fatal(err)
		}
		for _, want := range tc.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("ready %t: no %q in\n%s", tc.ready, want, out.String())
			}
		}
	}
}

func TestWriteDetails(t *testing.T) {
	all := []component.Status{{Name: "etcd"}, {Name: "routing", Details: map[string]any{"asn": 64512, "sessions": []any{map[string]any{"peer": "192.0.2.2"}}}}}
	var out strings.Builder
	if err := writeDetails(&out, all); err != nil {
		t.Fatal(err)
	}
	if want := "routing:\n  asn: 64512\n  sessions:\n  - peer: 192.0.2.2\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestEncode(t *testing.T) {
	var out strings.Builder
	if err := encode(&out, "json", components); err != nil {
		t.Fatal(err)
	}
	var got []component.Status
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || len(got) != len(components) || *got[1].Process != *components[1].Process {
		t.Errorf("got %+v, %v", got, err)
	}
	out.Reset()
	if err := encode(&out, "yaml", components); err != nil || !strings.Contains(out.String(), "- name: certificates\n") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
	if err := encode(&out, "xml", components); err == nil || !strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("got %v", err)
	}
}
