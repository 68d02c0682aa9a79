package token

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"

	"k0s.io/k0s/internal/file"
)

// PreShared says what token to make without a cluster.
type PreShared struct {
	Role Role
	// URL is that of the Kubernetes API for workers, of the join API for controllers.
	URL string
	// CAFile holds the certificate of the cluster's authority.
	CAFile string
	// ValidFor is how long from now the token is good; 0 is for ever.
	ValidFor time.Duration
}

// Write makes a token and writes two files into dir, which must exist: bootstrap-token-<id>.yaml is the
// Secret, for a controller's <data-dir>/manifests/<stack>; token_<id> is the join token. Only their owner may
// read them.
func (p PreShared) Write(dir string) (manifestFile, tokenFile string, err error) {
	if p.ValidFor < 0 {
		return "", "", fmt.Errorf("a token cannot be valid for %s", p.ValidFor)
	}
	ca, err := os.ReadFile(p.CAFile)
	if err != nil {
		return "", "", fmt.Errorf("the certificate of the cluster's authority: %w", err)
	}
	secret, err := NewSecret()
	if err != nil {
		return "", "", err
	}
	var expires time.Time
	if p.ValidFor > 0 {
		expires = time.Now().Add(p.ValidFor)
	}
	joinToken, err := Join{Role: p.Role, URL: p.URL, CA: ca, Secret: secret}.Encode()
	if err != nil {
		return "", "", err
	}
	object := secret.Object(p.Role, expires)
	manifest, err := yaml.Marshal(object)
	if err != nil {
		return "", "", err
	}
	manifestFile = filepath.Join(dir, object.Name+".yaml")
	tokenFile = filepath.Join(dir, "token_"+secret.ID)
	if err := file.Write(manifestFile, manifest, 0o600, file.Options{UID: -1}); err != nil {
		return "", "", err
	}
	if err := file.Write(tokenFile, []byte(joinToken+"\n"), 0o600, file.Options{UID: -1}); err != nil {
		os.Remove(manifestFile)
		return "", "", err
	}
	return manifestFile, tokenFile, nil
}
