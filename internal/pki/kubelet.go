package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// StoreKubeletCertificate puts a certificate with its key, as PEM, where the kubelet looks for it, in the way of
// client-go's certificate.FileStore: current is a link, which the kubelet sets anew when it has renewed
// its certificate. It refuses to replace a file.
func StoreKubeletCertificate(current string, content []byte) error {
	dir := filepath.Dir(current)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := fmt.Sprintf("kubelet-client-%s.pem", time.Now().Format("2006-01-02-15-04-05"))
	if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
		return err
	}
	link := current + ".new"
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(file, link); err != nil {
		return err
	}
	return os.Rename(link, current)
}
