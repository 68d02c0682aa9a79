// Package pki makes the certificates and keys of a cluster and keeps them current.
//
// Keys are ECDSA P-256: a dozen RSA keys cost seconds at the first start. Certificates are valid
// from an hour before they are made, for hosts whose clocks differ.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k0s.io/k0s/internal/file"
)

// Lifetimes of new certificates, unless configured.
const (
	DefaultCALifetime   = 10 * 365 * 24 * time.Hour
	DefaultLeafLifetime = 365 * 24 * time.Hour
)

const backdate = time.Hour

// Owner of a key file; the zero value is root. A UID of -1 leaves the file its owner.
type Owner struct{ UID int }

// CA is a certificate authority on disk. Without its key (a custom CA kept elsewhere) it verifies,
// but issues nothing.
type CA struct {
	Cert *x509.Certificate
	key  crypto.Signer
	file string
}

// Path of the CA's certificate.
func (ca *CA) Path() string { return ca.file }

// Request says which certificate is wanted.
type Request struct {
	// Path of the files, without .crt and .key.
	Path string
	// CommonName and Organization: user and group in the eyes of Kubernetes.
	CommonName, Organization string
	// Names are DNS names and IP addresses it is valid for.
	Names []string
	// Server and Client are the uses.
	Server, Client bool
	// Lifetime of a newly made certificate.
	Lifetime time.Duration
	// Owner of the key.
	Owner Owner
}

// EnsureCA loads the authority in path.crt and path.key, making it where there is none. A certificate
// that was lost is made anew only for a key that has not signed anything yet: then it was never there,
// because the first start was interrupted.
func EnsureCA(path, commonName string, lifetime time.Duration, owner Owner) (*CA, error) {
	certFile, keyFile := path+".crt", path+".key"
	cert, err := readCert(certFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return makeCA(certFile, keyFile, commonName, lifetime, owner)
	case err != nil:
		return nil, damaged(err)
	case !cert.IsCA:
		return nil, fmt.Errorf("%s is not a certificate authority's certificate", certFile)
	case time.Now().After(cert.NotAfter):
		return nil, fmt.Errorf("the certificate authority %s expired on %s: nothing it signed is valid any more; replace it and all certificates made from it", certFile, cert.NotAfter.Format(time.RFC3339))
	}
	ca := &CA{Cert: cert, file: certFile}
	key, err := readKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return ca, nil
	}
	if err != nil {
		return nil, damaged(err)
	}
	if !matches(cert, key) {
		return nil, fmt.Errorf("%s does not belong to %s", keyFile, certFile)
	}
	ca.key = key
	return ca, chown(keyFile, owner)
}

func makeCA(certFile, keyFile, commonName string, lifetime time.Duration, owner Owner) (*CA, error) {
	key, err := readKey(keyFile)
	isNew := errors.Is(err, fs.ErrNotExist)
	if isNew {
		key, err = newKey()
	}
	if err != nil {
		return nil, damaged(err)
	}
	if !isNew {
		signed, err := signedBy(key, filepath.Dir(certFile))
		if err != nil {
			return nil, err
		}
		if signed != "" {
			return nil, fmt.Errorf("%s is there, and has signed %s, but %s is not: put the certificate back, or remove the key, too, "+
				"to have a new authority made, which nothing that trusts the old one will trust", keyFile, signed, certFile)
		}
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		DNSNames:              []string{commonName},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	// The key first: a certificate without its key would look like a custom authority.
	if isNew {
		if err := writeKey(keyFile, key, owner); err != nil {
			return nil, err
		}
	}
	if err := writePEM(certFile, 0o644, Owner{}, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
		return nil, err
	}
	return &CA{Cert: cert, key: key, file: certFile}, chown(keyFile, owner)
}

// damaged says what to do about a file that cannot be read, and cannot be made anew.
func damaged(err error) error {
	return fmt.Errorf("%w: put the file back from a backup, or from another controller of the cluster, which has the same", err)
}

// signedBy finds a certificate in dir that key has signed; "" when there is none.
func signedBy(key crypto.Signer, dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.crt"))
	if err != nil {
		return "", err
	}
	authority := &x509.Certificate{PublicKey: key.Public()}
	for _, file := range files {
		cert, err := readCert(file)
		if err != nil {
			continue // half-written or not ours: no sign of a signature
		}
		if authority.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil {
			return file, nil
		}
	}
	return "", nil
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// Ensure sees to it that r's files hold a certificate that says what r wants, is signed by ca, and is
// good for at least a third of its lifetime; else a new one is issued, under a new key. Where ca has
// no key, the certificate on disk must do.
func (ca *CA) Ensure(r Request) error {
	certFile, keyFile := r.Path+".crt", r.Path+".key"
	cert, err := readCert(certFile)
	if err == nil {
		key, keyErr := readKey(keyFile)
		reason := ca.unfit(cert, r)
		if keyErr != nil {
			reason = keyErr.Error()
		} else if !matches(cert, key) {
			reason = "its key is another's"
		}
		if reason == "" {
			return chown(keyFile, r.Owner)
		}
		err = errors.New(reason)
	}
	if ca.key == nil {
		return fmt.Errorf("%s must be made anew (%w), but the key of its authority %s is not here: provide certificate and key, or the authority's key", certFile, err, ca.file)
	}
	certPEM, keyPEM, err := ca.Issue(r)
	if err != nil {
		return err
	}
	// Not made durable: what a power cut leaves half-written is made anew.
	if err := file.Write(keyFile, keyPEM, 0o640, file.Options{UID: r.Owner.UID}); err != nil {
		return err
	}
	return file.Write(certFile, certPEM, 0o644, file.Options{})
}

// Issue makes a key and a certificate for r without writing them anywhere.
func (ca *CA) Issue(r Request) (certPEM, keyPEM []byte, err error) {
	if ca.key == nil {
		return nil, nil, fmt.Errorf("cannot issue %s: the key of its authority %s is not here", r.CommonName, ca.file)
	}
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	notAfter := now.Add(r.Lifetime)
	if notAfter.After(ca.Cert.NotAfter) {
		notAfter = ca.Cert.NotAfter
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: r.CommonName},
		NotBefore:   now.Add(-backdate),
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: r.usages(),
	}
	if r.Organization != "" {
		template.Subject.Organization = []string{r.Organization}
	}
	template.DNSNames, template.IPAddresses = splitNames(r.Names)
	cert, err := sign(template, ca.Cert, key.Public(), ca.key)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return certPEM, keyPEM, nil
}

// unfit says why cert is not what r asks for; empty when it is.
func (ca *CA) unfit(cert *x509.Certificate, r Request) string {
	if err := cert.CheckSignatureFrom(ca.Cert); err != nil {
		return "it is signed by another authority"
	}
	if left := time.Until(cert.NotAfter); left < cert.NotAfter.Sub(cert.NotBefore)/3 {
		return "it expires on " + cert.NotAfter.Format(time.RFC3339)
	}
	if cert.Subject.CommonName != r.CommonName {
		return "it is for " + cert.Subject.CommonName
	}
	if r.Organization != "" && !slices.Equal(cert.Subject.Organization, []string{r.Organization}) {
		return "its organization differs"
	}
	dns, ips := splitNames(r.Names)
	for _, name := range dns {
		if !slices.Contains(cert.DNSNames, name) {
			return "it is not valid for " + name
		}
	}
	for _, ip := range ips {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return "it is not valid for " + ip.String()
		}
	}
	for _, use := range r.usages() {
		if !slices.Contains(cert.ExtKeyUsage, use) {
			return "it lacks a use"
		}
	}
	return ""
}

// Fits tells whether the certificate in a PEM file is what r asks for.
func (ca *CA) Fits(file string, r Request) bool {
	cert, err := readCert(file)
	return err == nil && ca.unfit(cert, r) == ""
}

func (r Request) usages() []x509.ExtKeyUsage {
	var uses []x509.ExtKeyUsage
	if r.Server {
		uses = append(uses, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		uses = append(uses, x509.ExtKeyUsageClientAuth)
	}
	return uses
}

// EnsureKeyPair makes the key that signs service account tokens: private in path.key, public in
// path.pub. What is there is left as it is: path.pub may hold further keys whose tokens are to be
// good. A private key that was lost is not made anew, for that would void every token.
func EnsureKeyPair(path string, owner Owner) error {
	keyFile, pubFile := path+".key", path+".pub"
	pub, pubErr := os.ReadFile(pubFile)
	if pubErr != nil && !errors.Is(pubErr, fs.ErrNotExist) {
		return pubErr
	}
	key, err := readKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if pubErr == nil {
			return fmt.Errorf("%s is there but %s is not: put the key back, or remove both files to have a new pair made, which voids every service account token", pubFile, keyFile)
		}
		if key, err = newKey(); err == nil {
			err = writeKey(keyFile, key, owner)
		}
	}
	if err != nil {
		return damaged(err)
	}
	if block, _ := pem.Decode(pub); block == nil {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		if err := writePEM(pubFile, 0o644, Owner{}, &pem.Block{Type: "PUBLIC KEY", Bytes: der}); err != nil {
			return err
		}
	}
	return chown(keyFile, owner)
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// splitNames tells addresses from DNS names, dropping repetitions.
func splitNames(names []string) (dns []string, ips []net.IP) {
	seen := map[string]bool{}
	for _, name := range names {
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, name)
		}
	}
	return dns, ips
}

func matches(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

func readCert(file string) (*x509.Certificate, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			return cert, nil
		}
	}
	return nil, fmt.Errorf("%s holds no PEM certificate", file)
}

func readKey(file string) (crypto.Signer, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM key", file)
	}
	var key any
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds a key that cannot sign", file)
	}
	return signer, nil
}

func writeKey(path string, key crypto.Signer, owner Owner) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, 0o640, owner, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// writePEM is for what cannot be made anew.
func writePEM(path string, mode fs.FileMode, owner Owner, block *pem.Block) error {
	return file.Write(path, pem.EncodeToMemory(block), mode, file.Options{UID: owner.UID, Durable: true})
}

// chown leaves alone what a symbolic link points to.
func chown(file string, owner Owner) error { return os.Lchown(file, owner.UID, 0) }
