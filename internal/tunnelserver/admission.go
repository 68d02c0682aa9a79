package tunnelserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/apiserver-network-proxy/proto/header"
)

// What a node's certificate says: see the Node authorizer of Kubernetes.
const (
	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
)

// maxIdentifiers is how many addresses and names an agent may answer for.
const maxIdentifiers = 16

// verifyNode refuses whoever has a certificate of the cluster's authority, but is no node.
func (o Options) verifyNode(c tls.ConnectionState) error {
	_, err := nodeOf(c)
	if err != nil {
		o.Log.Warn("Refused an agent", "error", err)
	}
	return err
}

// nodeOf is the name of the node at the other end.
func nodeOf(c tls.ConnectionState) (string, error) {
	if len(c.VerifiedChains) == 0 || len(c.PeerCertificates) == 0 {
		return "", errors.New("it has shown no certificate of the cluster's authority")
	}
	subject := c.PeerCertificates[0].Subject
	node, ok := strings.CutPrefix(subject.CommonName, nodePrefix)
	if !ok || node == "" || !slices.Contains(subject.Organization, nodesGroup) {
		return "", fmt.Errorf("%q of %q is not a node: only nodes (%sNAME of %s) may connect", subject.CommonName, subject.Organization, nodePrefix, nodesGroup)
	}
	return node, nil
}

// admit refuses agents that give themselves out for another node, or that ask for more than what is
// meant for their own node.
func (o Options) admit(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := check(stream.Context()); err != nil {
		o.Log.Warn("Refused an agent", "error", err)
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return handle(srv, stream)
}

func check(ctx context.Context) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return errors.New("nobody knows who it is")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return errors.New("it does not speak TLS")
	}
	node, err := nodeOf(info.State)
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if ids := md.Get(header.AgentID); !slices.Equal(ids, []string{node}) {
		return fmt.Errorf("node %s gives itself out for %q", node, ids)
	}
	said := md.Get(header.AgentIdentifiers)
	if len(said) > 1 {
		return fmt.Errorf("node %s says twice what it answers for", node)
	}
	for _, identifiers := range said {
		if err := checkIdentifiers(identifiers); err != nil {
			return fmt.Errorf("node %s: %w", node, err)
		}
	}
	return nil
}

// checkIdentifiers refuses all but a few names and addresses.
func checkIdentifiers(identifiers string) error {
	values, err := url.ParseQuery(identifiers)
	if err != nil {
		return fmt.Errorf("it answers for %q: %w", identifiers, err)
	}
	count := 0
	for kind, names := range values {
		if !slices.Contains([]header.IdentifierType{header.IPv4, header.IPv6, header.Host}, header.IdentifierType(kind)) {
			return fmt.Errorf("it wants to answer for %s=%s, which is more than a node", kind, strings.Join(names, ","))
		}
		count += len(names)
	}
	if count > maxIdentifiers {
		return fmt.Errorf("it wants to answer for %d names and addresses; a node has at most %d", count, maxIdentifiers)
	}
	return nil
}
