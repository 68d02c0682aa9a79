package joinapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/lru"

	"k0s.io/k0s/pkg/token"
)

// TokenSource knows the cluster's tokens.
type TokenSource interface {
	// Known returns what is remembered of a token; nil if there is none. It asks nobody.
	Known(id string) (*corev1.Secret, error)
	// Current asks the cluster for a token; nil if there is none.
	Current(ctx context.Context, id string) (*corev1.Secret, error)
}

// A client address may fail to prove itself 10 times, and once every 5 s after that. The last 4096 addresses
// that failed are remembered, which takes less than a megabyte.
const (
	failuresAtOnce = 10
	failureEvery   = 5 * time.Second
	maxAddresses   = 4096
)

// Of failures, 20 are logged, and one every 3 s after that, however many there are.
const (
	failuresLoggedAtOnce = 20
	failureLoggedEvery   = 3 * time.Second
)

// authenticator lets those in who have a token for controllers.
//
// A right token is let in even from an address where others fail: behind a load balancer all come from one
// address, and whoever floods it must not keep the rightful out. That costs nothing, for guessing is hopeless
// (a secret has 82 bits), and a wrong token costs a look into memory. The limit is for what follows a failure.
type authenticator struct {
	tokens TokenSource
	log    *slog.Logger

	mu       sync.Mutex
	failures *lru.Cache // from netip.Addr to *rate.Limiter
	logging  *rate.Limiter
	unlogged atomic.Int64
}

func newAuthenticator(tokens TokenSource, log *slog.Logger) *authenticator {
	return &authenticator{
		tokens: tokens, log: log, failures: lru.New(maxAddresses),
		logging: rate.NewLimiter(rate.Every(failureLoggedEvery), failuresLoggedAtOnce),
	}
}

// admit returns the id of the request's token, or answers the request itself.
func (a *authenticator) admit(ctx context.Context, w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		a.fail(w, r, "", errors.New("there is no bearer token"))
		return "", false
	}
	sent, err := token.ParseSecret(bearer)
	if err != nil {
		a.fail(w, r, "", errors.New("the bearer token is not of the form of a token"))
		return "", false
	}
	known, err := a.tokens.Known(sent.ID)
	if err == nil {
		if err := sent.Check(known, token.Controller, time.Now()); err != nil {
			a.fail(w, r, sent.ID, err)
			return "", false
		}
		// What is remembered may be old: the keys of the cluster go to nobody whose token is invalid by now.
		known, err = a.tokens.Current(ctx, sent.ID)
	}
	if err != nil {
		a.log.Warn("Cannot check a controller's token", "client", r.RemoteAddr, "token", sent.ID, "error", err)
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		refuse(w, http.StatusServiceUnavailable, "tokens cannot be checked right now")
		return "", false
	}
	if err := sent.Check(known, token.Controller, time.Now()); err != nil {
		a.fail(w, r, sent.ID, err)
		return "", false
	}
	return sent.ID, true
}

// fail says no more than no.
func (a *authenticator) fail(w http.ResponseWriter, r *http.Request, id string, reason error) {
	w.Header().Set("Connection", "close")
	if a.logging.Allow() {
		a.log.Warn("Refused a host that wanted to join", "client", r.RemoteAddr, "request", r.Method+" "+r.URL.Path,
			"token", id, "reason", reason, "unlogged", a.unlogged.Swap(0))
	} else {
		a.unlogged.Add(1)
	}
	if !a.mayFail(r.RemoteAddr) {
		w.Header().Set("Retry-After", strconv.Itoa(int(failureEvery/time.Second)))
		refuse(w, http.StatusTooManyRequests, "go away for a while")
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	refuse(w, http.StatusUnauthorized, "go away")
}

func (a *authenticator) mayFail(remote string) bool {
	key := addressOf(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	limit, ok := a.failures.Get(key)
	if !ok {
		limit = rate.NewLimiter(rate.Every(failureEvery), failuresAtOnce)
		a.failures.Add(key, limit)
	}
	return limit.(*rate.Limiter).Allow()
}

// addressOf is what stands for one client: an IPv6 host may have a whole /64.
func addressOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is6() {
		const hostBits = 64
		prefix, err := addr.Prefix(hostBits)
		if err != nil {
			return netip.Addr{}
		}
		return prefix.Addr()
	}
	return addr
}
