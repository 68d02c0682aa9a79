package pki

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	return linkTo(current, name)
}

// MendKubeletCertificate sees to a certificate that the kubelet itself has written: it does not sync that, and
// would end again and again if a power cut had left nothing of it. The newest of those before that can be
// loaded takes its place; where there is none, the kubelet asks for another one.
func MendKubeletCertificate(current string) error {
	if st, err := os.Lstat(current); err != nil || st.Mode().Type() != fs.ModeSymlink {
		return nil // there is none, or it is not the kubelet's
	}
	if isWhole(current) {
		return nil
	}
	files, err := filepath.Glob(strings.TrimSuffix(current, "current.pem") + "*.pem")
	if err != nil {
		return err
	}
	for _, file := range slices.Backward(files) { // their names are dates
		if isWhole(file) {
			return linkTo(current, filepath.Base(file))
		}
	}
	return os.Remove(current)
}

// isWhole tells whether a file holds a certificate and its key.
func isWhole(file string) bool {
	_, err := tls.LoadX509KeyPair(file, file)
	return err == nil
}

// linkTo makes current a link to a file beside it.
func linkTo(current, name string) error {
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
	return file.SyncDir(filepath.Dir(current))
}
