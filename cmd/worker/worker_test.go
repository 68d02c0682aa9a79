package worker

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"k0s.io/k0s/internal/workerconfig"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// The balancer goes to the port that the controllers want, unless something else is there.
func TestMoves(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int(netip.MustParseAddrPort(taken.Addr().String()).Port())
	settings := &workerconfig.Settings{Config: v1beta1.Default()}
	settings.Config.Spec.Network.NodeLocalLoadBalancing.EnvoyProxy.APIServerBindPort = port
	w := &running{port: port, log: slog.New(slog.DiscardHandler)}
	if got, err := w.firstPort(t.Context(), settings); err != nil || got == port || got == 0 {
		t.Errorf("while something else is on %d, the first port is %d, %v", port, got, err)
	}
	w.settings.Store(settings)
	if w.moves(t.Context()) {
		t.Error("it moves to where it is")
	}
	w.port = port + 1
	if w.moves(t.Context()) {
		t.Error("it moves to where something else is")
	}
	taken.Close()
	if !w.moves(t.Context()) {
		t.Error("it does not move")
	}
	if got, err := w.firstPort(t.Context(), settings); err != nil || got != port {
		t.Errorf("the first port is %d, %v; want %d", got, err, port)
	}
}

// The balancer leaves the other programs their ports, whatever the controllers say.
func TestPortOfAnother(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int(netip.MustParseAddrPort(free.Addr().String()).Port())
	free.Close()
	settings := &workerconfig.Settings{Config: v1beta1.Default()}
	settings.Config.Spec.Network.NodeLocalLoadBalancing.EnvoyProxy.APIServerBindPort = port
	settings.Config.Spec.WorkerProfiles = []v1beta1.WorkerProfile{{
		Name: v1beta1.DefaultProfile, Values: &runtime.RawExtension{Raw: fmt.Appendf(nil, `{"port": %d}`, port)},
	}}
	w := &running{port: port + 1, log: slog.New(slog.DiscardHandler)}
	w.settings.Store(settings)
	if got, err := w.firstPort(t.Context(), settings); err != nil || got == port || got == 0 {
		t.Errorf("while the kubelet is to be on %d, the first port is %d, %v", port, got, err)
	}
	if w.moves(t.Context()) {
		t.Error("it moves to where the kubelet is to be")
	}
	w.port = port
	if !w.moves(t.Context()) {
		t.Error("it stays where the kubelet is to be")
	}
}
