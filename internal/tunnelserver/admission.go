package tunnelserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a node's certificate says: see the Node authorizer of Kubernetes.
const (
	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
)

// verifyNode refuses whoever has a certificate of the cluster's authority, but is no node.
func verifyNode(c tls.ConnectionState) error {
	_, err := nodeOf(c)
	return err
}

// notNode is why somebody was refused who has a certificate of the cluster's authority.
type notNode struct{ error }

// nodeOf is the name of the node at the other end.
func nodeOf(c tls.ConnectionState) (string, error) {
	if len(c.VerifiedChains) == 0 || len(c.PeerCertificates) == 0 {
		return "", errors.New("it has shown no certificate of the cluster's authority")
	}
	subject := c.PeerCertificates[0].Subject
	node, ok := strings.CutPrefix(subject.CommonName, nodePrefix)
	if !ok || node == "" || !slices.Contains(subject.Organization, nodesGroup) {
		return "", notNode{fmt.Errorf("%q of %q is not a node: only nodes (%sNAME of %s) may connect", subject.CommonName, subject.Organization, nodePrefix, nodesGroup)}
	}
	return node, nil
}

// maxAddresses is how many addresses and names an agent may answer for.
const maxAddresses = 16

func checkAddresses(addresses []string) error {
	if len(addresses) > maxAddresses {
		return fmt.Errorf("it wants to answer for %d addresses and names; a node has at most %d", len(addresses), maxAddresses)
	}
	return nil
}
