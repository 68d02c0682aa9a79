package etcdmembers

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// record says what etcd itself does not know of a member before that has started: whose it is.
type record struct {
	Name string `json:"name"`
}

// records are kept for members that are joining, by their ids. They are in etcd, so that every controller
// knows them, and notices at once that somebody is joining.
type records interface {
	all(context.Context) (map[uint64]record, error)
	put(context.Context, uint64, record) error
	delete(context.Context, uint64) error
	// watch sends when records have changed, perhaps many at once; the channel is closed when nothing more
	// will be sent.
	watch(context.Context) <-chan struct{}
}

// joiningPrefix lies where kube-apiserver keeps no resource.
const joiningPrefix = "/registry/k0s/joining/"

// keys are records as keys of etcd.
type keys struct{ client *clientv3.Client }

func (k keys) all(ctx context.Context) (map[uint64]record, error) {
	resp, err := k.client.Get(ctx, joiningPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("reading who is joining: %w", err)
	}
	all := map[uint64]record{}
	for _, kv := range resp.Kvs {
		id, err := strconv.ParseUint(strings.TrimPrefix(string(kv.Key), joiningPrefix), 16, 64)
		var r record
		if err != nil || json.Unmarshal(kv.Value, &r) != nil {
			continue // a newer k0s's
		}
		all[id] = r
	}
	return all, nil
}

func (k keys) put(ctx context.Context, id uint64, r record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := k.client.Put(ctx, joiningKey(id), string(content)); err != nil {
		return fmt.Errorf("noting that %s is joining: %w", r.Name, err)
	}
	return nil
}

func (k keys) delete(ctx context.Context, id uint64) error {
	_, err := k.client.Delete(ctx, joiningKey(id))
	return err
}

func (k keys) watch(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		for resp := range k.client.Watch(ctx, joiningPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
			if resp.Err() != nil {
				return
			}
			select {
			case changed <- struct{}{}:
			default: // it is going to look anyway
			}
		}
	}()
	return changed
}

func joiningKey(id uint64) string { return joiningPrefix + strconv.FormatUint(id, 16) }
