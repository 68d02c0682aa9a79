// Package token makes and reads the join tokens of k0s, and keeps them in the cluster.
//
// A join token is a kubeconfig, compressed by gzip and encoded as base64: it says where the cluster is,
// how to recognise it, and carries a secret, ID.SECRET, that the cluster knows as a Secret of its own
// (a "bootstrap token" of Kubernetes). What a token is for, its role, is the user name in the kubeconfig.
package token

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/cluster-bootstrap/token/util"
)

// Role is what a token lets its holder become.
type Role string

// Roles.
const (
	Worker     Role = "worker"
	Controller Role = "controller"
)

// ParseRole reads a role as users write it.
func ParseRole(s string) (Role, error) {
	switch role := Role(s); role {
	case Worker, Controller:
		return role, nil
	}
	return "", fmt.Errorf("there is no role %q: want %s or %s", s, Worker, Controller)
}

// user is the user name in the kubeconfig of a token.
func (r Role) user() string {
	if r == Controller {
		return "controller-bootstrap"
	}
	return "kubelet-bootstrap"
}

func roleOfUser(user string) (Role, bool) {
	for _, role := range []Role{Worker, Controller} {
		if role.user() == user {
			return role, true
		}
	}
	return "", false
}

// Secret is what the holder of a token proves itself with. Its ID is no secret.
type Secret struct{ ID, Secret string }

// NewSecret returns a random one.
func NewSecret() (Secret, error) {
	s, err := util.GenerateBootstrapToken()
	if err != nil {
		return Secret{}, err
	}
	return ParseSecret(s)
}

// ParseSecret reads ID.SECRET: 6 and 16 of a-z and 0-9. The error does not repeat s.
func ParseSecret(s string) (Secret, error) {
	if !util.IsValidBootstrapToken(s) {
		return Secret{}, errors.New("want ID.SECRET, 6 and 16 of a-z and 0-9")
	}
	id, secret, _ := strings.Cut(s, ".")
	return Secret{id, secret}, nil
}

// Bearer is the form ID.SECRET.
func (s Secret) Bearer() string { return util.TokenFromIDAndSecret(s.ID, s.Secret) }

// String leaves the secret part out: it is for logs.
func (s Secret) String() string { return s.ID }
