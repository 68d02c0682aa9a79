package controlplane

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"k0s.io/k0s/internal/component"
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
		return approveServingCSRs(ctx, client, log)
	}, log)
}

func approveServingCSRs(ctx context.Context, client kubernetes.Interface, log *slog.Logger) error {
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
			err = approve(ctx, client, csr.DeepCopy(), log)
		}
		if err != nil && ctx.Err() == nil {
			log.Error("Cannot approve a kubelet's serving certificate, trying again", "csr", key, "error", err)
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}
		queue.Done(key)
	}
}

func approve(ctx context.Context, client kubernetes.Interface, csr *certificatesv1.CertificateSigningRequest, log *slog.Logger) error {
	if len(csr.Status.Conditions) > 0 {
		return nil
	}
	condition := certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
		Reason: "K0sApproved", Message: "a node asks for its own serving certificate",
	}
	if err := checkServingCSR(csr); err != nil {
		condition.Type, condition.Reason, condition.Message = certificatesv1.CertificateDenied, "K0sDenied", err.Error()
		log.Warn("Denied a serving certificate", "csr", csr.Name, "requester", csr.Spec.Username, "reason", err)
	}
	csr.Status.Conditions = append(csr.Status.Conditions, condition)
	_, err := client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
	return err
}

// servingUsages are the uses a kubelet may ask for.
var servingUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth}

// checkServingCSR says why a request must not be granted. A node may ask for itself only, and for no
// name but its own: the same authority vouches for the API server.
func checkServingCSR(csr *certificatesv1.CertificateSigningRequest) error {
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
	node, isNode := strings.CutPrefix(csr.Spec.Username, "system:node:")
	switch {
	case !isNode || node == "" || !slices.Contains(csr.Spec.Groups, "system:nodes"):
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
	for _, name := range req.DNSNames {
		if name != node && !strings.HasPrefix(name, node+".") {
			return fmt.Errorf("the DNS name %q is not that of node %s", name, node)
		}
	}
	for _, ip := range req.IPAddresses {
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("%s is no node's address", ip)
		}
	}
	if !slices.Contains(csr.Spec.Usages, certificatesv1.UsageServerAuth) {
		return errors.New("it does not ask for server auth")
	}
	for _, usage := range csr.Spec.Usages {
		if !slices.Contains(servingUsages, usage) {
			return fmt.Errorf("use %q is not one of a serving certificate", usage)
		}
	}
	return nil
}
