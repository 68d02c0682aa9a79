package worker

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

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
	if got, err := firstPort(t.Context(), settings); err != nil || got == port || got == 0 {
		t.Errorf("while something else is on %d, the first port is %d, %v", port, got, err)
	}
	w := &running{port: port, log: slog.New(slog.DiscardHandler)}
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
	if got, err := firstPort(t.Context(), settings); err != nil || got != port {
		t.Errorf("the first port is %d, %v; want %d", got, err, port)
	}
}
