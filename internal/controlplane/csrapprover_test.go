package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestServingCSRs(t *testing.T) {
	good := func() (x509.CertificateRequest, certificatesv1.CertificateSigningRequestSpec) {
		return x509.CertificateRequest{
				Subject:     pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}},
				DNSNames:    []string{"n1", "n1.example"},
				IPAddresses: []net.IP{net.ParseIP("192.0.2.1")},
			}, certificatesv1.CertificateSigningRequestSpec{
				SignerName: certificatesv1.KubeletServingSignerName,
				Username:   "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"},
				Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
			}
	}
	for _, tc := range []struct {
		name   string
		change func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequestSpec)
		denied string // empty: approved
	}{
		{"a node for itself", func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequestSpec) {}, ""},
		{"a node for another", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.Subject.CommonName = "system:node:n2"
		}, "asks for a certificate of system:node:n2"},
		{"no node", func(_ *x509.CertificateRequest, s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "jane" }, "is not a node"},
		{"not among the nodes", func(_ *x509.CertificateRequest, s *certificatesv1.CertificateSigningRequestSpec) { s.Groups = nil }, "is not a node"},
		{"another organization", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.Subject.Organization = []string{"system:masters"}
		}, "organization"},
		{"the API server's name", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.DNSNames = []string{"kubernetes.default.svc"}
		}, "is not for node n1"},
		{"a name that is not in the node's status", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.DNSNames = []string{"n2"}
		}, "not among the addresses"},
		{"the kubernetes service's address", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.IPAddresses = []net.IP{net.ParseIP("10.96.0.1")}
		}, "is not for node n1"},
		{"the API server's address, though the node claims it", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.IPAddresses = []net.IP{net.ParseIP("192.0.2.9")}
		}, "is not for node n1"},
		{"a node that is not registered", func(r *x509.CertificateRequest, s *certificatesv1.CertificateSigningRequestSpec) {
			s.Username, r.Subject.CommonName = "system:node:n3", "system:node:n3"
		}, "is not registered"},
		{"loopback", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}, "no node's address"},
		{"no names", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.DNSNames, r.IPAddresses = nil, nil
		}, "neither"},
		{"a URI", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequestSpec) {
			r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}}
		}, "URIs"},
		{"client auth", func(_ *x509.CertificateRequest, s *certificatesv1.CertificateSigningRequestSpec) {
			s.Usages = append(s.Usages, certificatesv1.UsageClientAuth)
		}, "client auth"},
		{"no server auth", func(_ *x509.CertificateRequest, s *certificatesv1.CertificateSigningRequestSpec) {
			s.Usages = s.Usages[:1]
		}, "server auth"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			template, spec := good()
			tc.change(&template, &spec)
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
			if err != nil {
				t.Fatal(err)
			}
			spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
			csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "csr"}, Spec: spec}
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalDNS, Address: "n1.example"},
				{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.9"},
			}}}
			client := fake.NewClientset(csr, node)
			reserved, err := reservedNames(options(t, func(o *Options) { o.NodeName, o.Config.Spec.API.Address = "controller", "192.0.2.9" }))
			if err != nil {
				t.Fatal(err)
			}
			a := &approver{client: client, reserved: reserved, log: slog.New(slog.DiscardHandler)}
			if err := a.decide(context.Background(), csr, false); err != nil {
				t.Fatal(err)
			}
			got, err := client.CertificatesV1().CertificateSigningRequests().Get(context.Background(), "csr", metav1.GetOptions{})
			if err != nil || len(got.Status.Conditions) != 1 {
				t.Fatalf("got %+v, %v", got.Status.Conditions, err)
			}
			c := got.Status.Conditions[0]
			if approved := c.Type == certificatesv1.CertificateApproved; approved != (tc.denied == "") || !strings.Contains(c.Message, tc.denied) {
				t.Errorf("got %s: %s", c.Type, c.Message)
			}
		})
	}
	garbage := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Request: []byte("x")}}
	if err := (&approver{}).check(context.Background(), garbage); err == nil {
		t.Error("garbage must be denied")
	}
}

func TestReservedNames(t *testing.T) {
	reserved, err := reservedNames(options(t, func(o *Options) {
		dual(v1beta1.IPv4Family)(o)
		o.NodeName, o.Config.Spec.API.Address = "n1", "10.99.0.1"
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		node, san string
		want      bool
	}{
		{"n1", "10.99.0.1", false}, // this host's own, though among the services'
		{"n2", "10.99.0.1", true},
		{"n1", "10.96.0.1", true},
		{"n1", "10.99.0.2", true},
		{"n1", "fd01::1", true},
		{"n1", "fd02::1", false},
		{"n2", "192.0.2.7", false},
		{"n1", "n1", false},
		{"n2", "n1", true},
		{"kubernetes", "kubernetes", true},
		{"n1", "a.cluster.local", true},
	} {
		if got := reserved(tc.node, tc.san); got != tc.want {
			t.Errorf("%s for %s: got %v", tc.san, tc.node, got)
		}
	}
}
