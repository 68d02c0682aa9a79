package tunnel

// How agents and servers understand each other: the agent connects with TLS and this application protocol,
// and then speaks HTTP/2 with its roles reversed. The agent is the HTTP server, for that one client. So
// every connection through the tunnel is a stream of its own: one that nobody reads from holds up no other.
//
//   - GET / asks for the agent's Identity, and says who asks. An agent that is connected to that server
//     already answers 409 and disconnects.
//   - CONNECT HOST:PORT is answered with 200 once the agent is connected to that, else with 502 and the reason.
const (
	// Protocol is that of TLS (ALPN).
	Protocol = "k0s-tunnel/1"
	// ServerHeader has the id of the server, which is new each time one starts.
	ServerHeader = "K0s-Tunnel-Server"
	// MaxReason bounds, in bytes, the reason of a 502.
	MaxReason = 1 << 10
)

// Identity is what an agent says of itself.
type Identity struct {
	// Addresses and names by which API servers know the node.
	Addresses []string `json:"addresses"`
}
