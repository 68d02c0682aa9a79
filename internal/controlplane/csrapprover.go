package controlplane

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
)

// csrApprover approves the kubelets' requests for serving certificates as they arrive. Kubernetes
// approves only client certificates by itself.
func csrApprover(o Options) component.Component {
	log := o.Log.With("component", "csr-approver")
	return component.Background("csr-approver", func(ctx context.Context) error {
		client, err := o.adminClient()
		if err != nil {
			return err
		}
		reserved, err := reservedNames(o)
		if err != nil {
			return err
		}
		return (&approver{client: client, reserved: reserved, log: log}).run(ctx)
	}, log)
}

// reservedNames tells which names and addresses are not for the node's serving certificate: those that
// the API server is reached by, and the services'. This controller's own node shares its host's names.
func reservedNames(o Options) (func(node, san string) bool, error) {
	var services []netip.Prefix
	for _, cidr := range o.Config.ServiceCIDRs() {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, err
		}
		services = append(services, prefix)
	}
	names, err := serverNames(o)
	if err != nil {
		return nil, err
	}
	own, err := host.Addresses()
	if err != nil {
		return nil, err
	}
	return reserve(o, services, names, append(own, netip.MustParseAddr(o.Config.Spec.API.Address))), nil
}

// reserve is reservedNames on a host with the addresses own. They may lie among the services': that is
// warned of, not refused.
func reserve(o Options, services []netip.Prefix, names []string, own []netip.Addr) func(node, san string) bool {
	return func(node, san string) bool {
		ip, err := netip.ParseAddr(san)
		if err == nil && node == o.NodeName && slices.Contains(own, ip) {
			return false
		}
		if err == nil && slices.ContainsFunc(services, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return true
		}
		if san == "localhost" || strings.HasSuffix(san, ".svc") || strings.HasSuffix(san, "."+o.Config.Spec.Network.ClusterDomain) ||
			san == "kubernetes" || strings.HasPrefix(san, "kubernetes.") {
			return true
		}
		return node != o.NodeName && slices.Contains(names, san)
	}
}

// approver approves requests for serving certificates.
type approver struct {
	client   kubernetes.Interface
	reserved func(node, san string) bool
	log      *slog.Logger
}

// attempts is how often a request is looked at, with back-off from 5 ms, while its node's addresses
// are not what it names: 20 s in all.
const attempts = 12

// errAddresses says that a node does not have an address it asks a certificate for, not yet perhaps.
var errAddresses = errors.New("not among the addresses in its node's status")

func (a *approver) run(ctx context.Context) error {
	client, log := a.client, a.log
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	defer queue.ShutDown()
	onlyServing := fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName).String()
	enqueue := func(obj any) {
		if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && len(csr.Status.Conditions) == 0 {
			queue.Add(csr.Name)
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(cache.NewFilteredListWatchFromClient(
			client.CertificatesV1().RESTClient(), "certificatesigningrequests", metav1.NamespaceAll,
			func(lo *metav1.ListOptions) { lo.FieldSelector = onlyServing }), client),
		ObjectType: &certificatesv1.CertificateSigningRequest{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    enqueue,
			UpdateFunc: func(_, obj any) { enqueue(obj) },
		},
	})
	go informer.RunWithContext(ctx)
	go func() { <-ctx.Done(); queue.ShutDown() }()
	for {
		key, quit := queue.Get()
		if quit {
			return nil
		}
		obj, exists, err := store.GetByKey(key)
		if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); err == nil && exists && ok {
			err = a.decide(ctx, csr.DeepCopy(), queue.NumRequeues(key) < attempts)
		}
		if errors.Is(err, errAddresses) {
			queue.AddRateLimited(key)
		} else if err != nil && ctx.Err() == nil {
			log.Error("Cannot approve a kubelet's serving certificate, trying again", "csr", key, "error", err)
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}
		queue.Done(key)
	}
}

// decide approves or denies csr. While patient it returns errAddresses rather than deny what the node's
// status may yet confirm.
func (a *approver) decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, patient bool) error {
	if len(csr.Status.Conditions) > 0 {
		return nil
	}
	condition := certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
		Reason: "K0sApproved", Message: "a node asks for its own serving certificate",
	}
	if err := a.check(ctx, csr); err != nil {
		if patient && errors.Is(err, errAddresses) {
			return err
		}
		condition.Type, condition.Reason, condition.Message = certificatesv1.CertificateDenied, "K0sDenied", err.Error()
		a.log.Warn("Denied a serving certificate", "csr", csr.Name, "requester", csr.Spec.Username, "reason", err)
	}
	csr.Status.Conditions = append(csr.Status.Conditions, condition)
	_, err := a.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
	return err
}

// servingUsages are the uses a kubelet may ask for.
var servingUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth}

// check says why a request must not be granted. A node may ask for itself only, by names and addresses
// that are in its status and are nobody else's: the same authority vouches for the API server.
func (a *approver) check(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) error {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("it holds no PEM certificate request")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("its certificate request cannot be parsed: %w", err)
	}
	if err := req.CheckSignature(); err != nil {
		return fmt.Errorf("it is not signed by the key it is for: %w", err)
	}
	nodeName, isNode := strings.CutPrefix(csr.Spec.Username, "system:node:")
	switch {
	case !isNode || nodeName == "" || !slices.Contains(csr.Spec.Groups, "system:nodes"):
		return fmt.Errorf("%q is not a node", csr.Spec.Username)
	case req.Subject.CommonName != csr.Spec.Username:
		return fmt.Errorf("%s asks for a certificate of %s", csr.Spec.Username, req.Subject.CommonName)
	case !slices.Equal(req.Subject.Organization, []string{"system:nodes"}):
		return fmt.Errorf("its organization is %q, not system:nodes", req.Subject.Organization)
	case len(req.DNSNames)+len(req.IPAddresses) == 0:
		return errors.New("it names neither a DNS name nor an address")
	case len(req.EmailAddresses)+len(req.URIs) > 0:
		return errors.New("it names e-mail addresses or URIs")
	}
	if !slices.Contains(csr.Spec.Usages, certificatesv1.UsageServerAuth) {
		return errors.New("it does not ask for server auth")
	}
	for _, usage := range csr.Spec.Usages {
		if !slices.Contains(servingUsages, usage) {
			return fmt.Errorf("use %q is not one of a serving certificate", usage)
		}
	}
	return a.checkNames(ctx, nodeName, req)
}

func (a *approver) checkNames(ctx context.Context, nodeName string, req *x509.CertificateRequest) error {
	sans := slices.Clone(req.DNSNames)
	for _, ip := range req.IPAddresses {
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("%s is no node's address", ip)
		}
		sans = append(sans, ip.String())
	}
	for _, san := range sans {
		if a.reserved(nodeName, san) {
			return fmt.Errorf("%q is not for node %s", san, nodeName)
		}
	}
	node, err := a.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("node %s is not registered: %w", nodeName, errAddresses)
	}
	if err != nil {
		return err
	}
	for _, san := range sans {
		if !slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == san }) {
			return fmt.Errorf("%q is %w", san, errAddresses)
		}
	}
	return nil
}
