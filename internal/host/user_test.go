package host

import (
	"os/user"
	"testing"
)

func TestLookupUser(t *testing.T) {
	for _, tc := range []struct {
		name string
		want User
		ok   bool
	}{
		{"root", User{Name: "root"}, true},
		{"daemon", User{Name: "daemon", UID: 1, GID: 1}, true}, // the same on every Linux
		{"no-such-user", User{Name: "root"}, false},
	} {
		if got, ok, err := LookupUser(tc.name); err != nil || ok != tc.ok || got != tc.want {
			t.Errorf("%s: got %+v, %t, %v", tc.name, got, ok, err)
		}
	}
}

func TestFromAccount(t *testing.T) {
	for _, tc := range []struct {
		name, uid, gid string
		want           User
		ok             bool
	}{
		{"its own group", "101", "102", User{Name: "u", UID: 101, GID: 102}, true},
		{"root", "0", "0", User{Name: "u"}, true},
		{"of root's group, which reads keys", "101", "0", User{Name: "u", UID: 101, GID: 101}, true},
		{"no number", "S-1-5", "0", User{}, false},
		{"no group number", "101", "-1", User{}, false},
	} {
		got, err := fromAccount(&user.User{Username: "u", Uid: tc.uid, Gid: tc.gid})
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%s: got %+v, %v", tc.name, got, err)
		}
	}
}
