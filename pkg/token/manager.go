package token

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/util"
)

// Manager keeps a cluster's tokens.
type Manager struct{ client kubernetes.Interface }

// NewManager returns one for the cluster behind client.
func NewManager(client kubernetes.Interface) *Manager { return &Manager{client} }

// Create makes a token that is good for validFor, 0 for ever.
func (m *Manager) Create(ctx context.Context, role Role, validFor time.Duration) (Secret, error) {
	var expires time.Time
	if validFor < 0 {
		return Secret{}, fmt.Errorf("a token cannot be valid for %s", validFor)
	}
	if validFor > 0 {
		expires = time.Now().Add(validFor)
	}
	for {
		s, err := NewSecret()
		if err != nil {
			return Secret{}, err
		}
		_, err = m.client.CoreV1().Secrets(Namespace).Create(ctx, s.Object(role, expires), metav1.CreateOptions{})
		switch {
		case apierrors.IsAlreadyExists(err):
			continue // another has the id
		case err != nil:
			return Secret{}, fmt.Errorf("storing the token in the cluster: %w", err)
		}
		return s, nil
	}
}

// ForTokens selects the Secrets of tokens, together with Namespace.
func ForTokens(options *metav1.ListOptions) {
	options.FieldSelector = fields.OneTermEqualSelector("type", string(api.SecretTypeBootstrapToken)).String()
}

// List returns the tokens for role, all if it is empty, in the order of their ids. Expired ones are among
// them until the controller manager removes them. Secrets that are no join tokens are left out.
func (m *Manager) List(ctx context.Context, role Role) ([]Info, error) {
	var options metav1.ListOptions
	ForTokens(&options)
	objects, err := m.client.CoreV1().Secrets(Namespace).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("listing the cluster's tokens: %w", err)
	}
	var infos []Info
	for i := range objects.Items {
		info, err := FromObject(&objects.Items[i])
		if err != nil || role != "" && info.Role != role {
			continue
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b Info) int { return cmp.Compare(a.ID, b.ID) })
	return infos, nil
}

// Invalidate deletes the token with this id, and tells whether there was one. Those who have joined with it
// stay.
func (m *Manager) Invalidate(ctx context.Context, id string) (found bool, err error) {
	if err := CheckID(id); err != nil {
		return false, err
	}
	err = m.client.CoreV1().Secrets(Namespace).Delete(ctx, util.BootstrapTokenSecretName(id), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("invalidating the token %s: %w", id, err)
	}
	return true, nil
}

// CheckID refuses what cannot be the id of a token.
func CheckID(id string) error {
	if !util.IsValidBootstrapTokenID(id) {
		return fmt.Errorf("%.80q is not the id of a token, which has 6 of a-z and 0-9: `k0s token list` shows them", id)
	}
	return nil
}
