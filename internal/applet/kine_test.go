package applet

import (
	"context"
	"errors"
	"testing"

	"github.com/k3s-io/kine/pkg/server"
)

type fakeBackend struct {
	server.Backend
	created int64
	err     error
	stored  *server.KeyValue
	getErr  error
}

func (f fakeBackend) Create(context.Context, string, []byte, int64) (int64, error) {
	return f.created, f.err
}

func (f fakeBackend) Get(_ context.Context, _ string, revision int64, _ bool) (int64, *server.KeyValue, error) {
	if revision != f.created {
		return 0, nil, errors.New("another revision was asked for")
	}
	return revision, f.stored, f.getErr
}

func TestVerifiedBackend(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name    string
		backend fakeBackend
		fails   bool
		is      error
	}{
		{name: "stored", backend: fakeBackend{created: 7, stored: &server.KeyValue{ModRevision: 7}}},
		{name: "lost", backend: fakeBackend{created: 7}, fails: true},
		{name: "an older one", backend: fakeBackend{created: 7, stored: &server.KeyValue{ModRevision: 5}}, fails: true},
		{name: "there is no telling", backend: fakeBackend{created: 7, getErr: broken}, fails: true, is: broken},
		{name: "exists", backend: fakeBackend{err: server.ErrKeyExists}, fails: true, is: server.ErrKeyExists},
	} {
		revision, err := verifiedBackend{tc.backend}.Create(t.Context(), "k", nil, 0)
		if (err != nil) != tc.fails || tc.is != nil && !errors.Is(err, tc.is) || err == nil && revision != 7 {
			t.Errorf("%s: got %d, %v", tc.name, revision, err)
		}
		if tc.backend.err != nil && any(err) != any(tc.backend.err) { // kine compares it that way
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}
