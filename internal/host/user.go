package host

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// User is an account, with its primary group, that a child runs as. The zero value is root.
type User struct {
	Name     string
	UID, GID uint32
}

// LookupUser finds a system user; when there is none the child runs as root and ok is false. Nobody
// but root has the group root, which may read the keys: a user of that group gets its own id for a
// group instead.
func LookupUser(name string) (u User, ok bool, err error) {
	found, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) || errors.Is(err, os.ErrNotExist) {
		return User{Name: "root"}, false, nil
	}
	if err != nil {
		return User{}, false, fmt.Errorf("looking up user %q: %w", name, err)
	}
	u, err = fromAccount(found)
	return u, err == nil, err
}

func fromAccount(account *user.User) (User, error) {
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %q has uid %q: %w", account.Username, account.Uid, err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %q has gid %q: %w", account.Username, account.Gid, err)
	}
	if gid == 0 {
		gid = uid
	}
	return User{Name: account.Username, UID: uint32(uid), GID: uint32(gid)}, nil
}
