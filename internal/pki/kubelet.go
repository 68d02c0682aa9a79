package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k0s.io/k0s/internal/file"
)

// StoreKubeletCertificate puts a certificate with its key, as PEM, where the kubelet looks for it, in the way of
// client-go's certificate.FileStore: current is a link, which the kubelet sets anew when it has renewed
// its certificate. It refuses to replace a file.
func StoreKubeletCertificate(current string, content []byte) error {
	dir := filepath.Dir(current)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := fmt.Sprintf("kubelet-client-%s.pem", time.Now().Format("2006-01-02-15-04-05"))
	if err := file.Write(filepath.Join(dir, name), content, 0o600, file.Options{Durable: true}); err != nil {
		return err
	}
	link := current + ".new"
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(name, link); err != nil {
		return err
	}
	if err := os.Rename(link, current); err != nil {
		return err
	}
	return file.SyncDir(dir)
}
