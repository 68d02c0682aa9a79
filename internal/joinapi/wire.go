package joinapi

// Paths and bodies are upstream's, so that its controllers and ours understand each other. Fields that
// upstream does not have are left out where they are empty.
const (
	caPath      = "/v1beta1/ca"
	membersPath = "/v1beta1/etcd/members"
)

// caBody holds PEM; nil is null.
type caBody struct {
	Key       []byte `json:"key"`
	Cert      []byte `json:"cert"`
	SAKey     []byte `json:"saKey"`
	SAPub     []byte `json:"saPub"`
	ClusterID string `json:"clusterID,omitempty"`
	// An authority that all controllers share is known to all aggregated APIs when one more joins.
	FrontProxyKey  []byte `json:"frontProxyKey,omitempty"`
	FrontProxyCert []byte `json:"frontProxyCert,omitempty"`
	// Founded are the values of k0s.yaml that all controllers must have in common, by path.
	Founded map[string]string `json:"founded,omitempty"`
}

type memberRequest struct {
	Node        string `json:"node"`
	PeerAddress string `json:"peerAddress"`
	// MemberID, in hex, is that of the member whose data is on the node's disk.
	MemberID string `json:"memberID,omitempty"`
}

type memberBody struct {
	CA             caBody   `json:"ca"`
	InitialCluster []string `json:"initialCluster"`
	MemberID       string   `json:"memberID,omitempty"`
}
