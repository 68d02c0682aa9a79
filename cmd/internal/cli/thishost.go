package cli

import (
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// ThisHost is what a configuration has to go with here.
func ThisHost(dataDir string) (v1beta1.Host, error) {
	addresses, err := host.Addresses()
	return v1beta1.Host{Addresses: addresses, DataDir: dataDir, CanListen: host.CanListen, HasUser: hasUser}, err
}

// hasUser leaves it to the start to say that users cannot be looked up.
func hasUser(name string) bool {
	_, ok, err := host.LookupUser(name)
	return ok || err != nil
}
