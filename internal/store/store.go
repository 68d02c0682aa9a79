// Package store speaks to the cluster's store as its clients do, in etcd's protocol: it asks whether the
// store answers, and makes sure that it is the store of this cluster and of no other.
package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// DefaultPrefix is what keys begin with where nothing else is said: kube-apiserver's own default.
const DefaultPrefix = "/registry"

// Access says how a store is reached.
type Access struct {
	// Name is what messages call the store. Required; it must hold no secrets.
	Name string
	// Elsewhere says in messages how to choose another store.
	Elsewhere string
	// Endpoints are URLs: https, http, or unix:///path of a socket.
	Endpoints []string
	// CAFile, CertFile and KeyFile are for TLS; empty without.
	CAFile, CertFile, KeyFile string
	// Prefix is what the cluster's keys begin with. Default: DefaultPrefix.
	Prefix string
}

// Ask reads from the store, in a way that only a store in working order can answer. One endpoint that does
// is enough; the error says what each of them answered instead.
func (a Access) Ask(ctx context.Context) error {
	answers := make(chan error, len(a.Endpoints))
	for _, endpoint := range a.Endpoints {
		go func() {
			err := a.connected(ctx, []string{endpoint}, 1, func(client *clientv3.Client) error {
				// The client itself would wait, and not say what for.
				_, err := etcdserverpb.NewKVClient(client.ActiveConnection()).Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(a.idKey())})
				return err
			})
			if err != nil {
				err = fmt.Errorf("%s: %w", endpoint, plain(err))
			}
			answers <- err
		}()
	}
	var errs []string
	for range a.Endpoints {
		err := <-answers
		if err == nil {
			return nil
		}
		errs = append(errs, err.Error())
	}
	return errors.New(strings.Join(errs, "; "))
}

// Refusal says that the store is not this cluster's. It stays so until somebody does something about it.
type Refusal struct{ reason string }

func (r *Refusal) Error() string { return r.reason }

// Claim makes sure that the store is that of the cluster with this id. While the cluster is being founded,
// an empty store becomes its own; a member's store must be so already. The error is a *Refusal when the
// store is another's, or holds what is nobody's.
func (a Access) Claim(ctx context.Context, clusterID string, founding bool) error {
	return a.connected(ctx, a.Endpoints, 0, func(client *clientv3.Client) error {
		owner, err := a.owner(ctx, client)
		if err == nil && owner == "" && founding {
			owner, err = a.become(ctx, client, clusterID)
		}
		switch {
		case errors.As(err, new(*Refusal)):
			return err
		case err != nil:
			return fmt.Errorf("asking %s whose it is: %w", a.Name, plain(err))
		case owner == clusterID:
			return nil
		case founding:
			return &Refusal{fmt.Sprintf("%s is the store of cluster %s, and this host is to found another one, %s: choose %s, "+
				"or delete all that is in it if that cluster is gone for good", a.Name, owner, clusterID, a.Elsewhere)}
		case owner == "":
			return &Refusal{fmt.Sprintf("this host is a member of cluster %s, but %s does not hold that cluster (there is no key %s): "+
				"put spec.storage back as it was, or restore the data from a backup; `k0s reset` gives the cluster up", clusterID, a.Name, a.idKey())}
		default:
			return &Refusal{fmt.Sprintf("this host is a member of cluster %s, but %s is the store of cluster %s: "+
				"put spec.storage back as it was, or restore the data from a backup; `k0s reset` gives the cluster up", clusterID, a.Name, owner)}
		}
	})
}

// owner is the id of the cluster that the store belongs to; empty if it belongs to none.
func (a Access) owner(ctx context.Context, client *clientv3.Client) (string, error) {
	found, err := client.Get(ctx, a.idKey())
	if err != nil || len(found.Kvs) == 0 {
		return "", err
	}
	return string(found.Kvs[0].Value), nil
}

// become makes an empty store that of the cluster, and returns whose it is then: another may be faster.
func (a Access) become(ctx context.Context, client *clientv3.Client, clusterID string) (owner string, err error) {
	if err := a.checkEmpty(ctx, client); err != nil {
		return "", err
	}
	// Kine knows this transaction, which creates a key that is not there, and few others.
	_, err = client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(a.idKey()), "=", 0)).
		Then(clientv3.OpPut(a.idKey(), clusterID)).Commit()
	if err != nil {
		return "", err
	}
	return a.owner(ctx, client)
}

// checkEmpty refuses a store that holds keys of somebody.
func (a Access) checkEmpty(ctx context.Context, client *clientv3.Client) error {
	nobodys := []string{a.idKey(), a.prefix() + "/health"} // kine makes the latter at its start
	found, err := client.Get(ctx, a.prefix()+"/", clientv3.WithPrefix(), clientv3.WithLimit(int64(len(nobodys)+1)), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	for _, kv := range found.Kvs {
		if !slices.Contains(nobodys, string(kv.Key)) {
			return &Refusal{fmt.Sprintf("%s is not empty (there is the key %s), and nothing tells whose it is: choose %s, "+
				"or delete all that is in it if it is not needed any more", a.Name, kv.Key, a.Elsewhere)}
		}
	}
	return nil
}

// prefix has a slash at its beginning and none at its end, as kube-apiserver reads it.
func (a Access) prefix() string {
	if a.Prefix == "" {
		return DefaultPrefix
	}
	return path.Join("/", a.Prefix)
}

// idKey lies where kube-apiserver keeps no resource.
func (a Access) idKey() string { return a.prefix() + "/k0s/cluster-id" }

// connected lends a client of the endpoints to use. attempts is how often it makes a request that fails; 0
// leaves that to the client.
func (a Access) connected(ctx context.Context, endpoints []string, attempts uint, use func(*clientv3.Client) error) error {
	config := clientv3.Config{Context: ctx, Endpoints: endpoints, MaxUnaryRetries: attempts, Logger: zap.NewNop()}
	if a.CAFile != "" {
		var err error
		if config.TLS, err = a.tls(); err != nil {
			return err
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return err
	}
	defer client.Close()
	return use(client)
}

func (a Access) tls() (*tls.Config, error) {
	ca, err := os.ReadFile(a.CAFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", a.CAFile)
	}
	cert, err := tls.LoadX509KeyPair(a.CertFile, a.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s: %w", a.CertFile, err)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

// plain leaves out what gRPC wraps around an error.
func plain(err error) error {
	switch s, ok := status.FromError(err); {
	case errors.Is(err, context.DeadlineExceeded) || ok && s.Code() == codes.DeadlineExceeded:
		return errors.New("no answer in time")
	case ok:
		return errors.New(s.Message())
	}
	return err
}
