package joinapi

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// certificate is read from its files again when they have changed.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	loaded [2]fs.FileInfo // the files that pair was read from
}

// openCertificate reads the files, which must be there.
func openCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	return c, c.load()
}

// load reads the files if they are not those that were read last.
func (c *certificate) load() error {
	var files [2]fs.FileInfo
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("the join API's certificate: %w", err)
		}
		files[i] = info
	}
	if c.pair != nil && same(files[0], c.loaded[0]) && same(files[1], c.loaded[1]) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("the join API's certificate: %w", err)
	}
	c.pair, c.loaded = &pair, files
	return nil
}

func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// get is for tls.Config. While the files cannot be used, perhaps because only one of them is new, the
// certificate stays what it was.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil {
		c.log.Debug("Cannot read the certificate again, going on with the old one", "error", err)
	}
	return c.pair, nil
}
