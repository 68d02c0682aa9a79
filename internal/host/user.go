package host

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// User is an account that a child runs as. The zero value is root.
type User struct {
	Name     string
	UID, GID uint32
}

// LookupUser finds a system user; when there is none the child runs as root and ok is false. The
// group stays root's, so that files readable by group root serve every component.
func LookupUser(name string) (u User, ok bool, err error) {
	found, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) || errors.Is(err, os.ErrNotExist) {
		return User{Name: "root"}, false, nil
	}
	if err != nil {
		return User{}, false, fmt.Errorf("looking up user %q: %w", name, err)
	}
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	if err != nil {
		return User{}, false, fmt.Errorf("user %q has uid %q: %w", name, found.Uid, err)
	}
	return User{Name: name, UID: uint32(uid)}, true, nil
}
