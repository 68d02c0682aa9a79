package joinapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/host"
)

// Members of etcd, as the service needs them.
type Members interface {
	AddLearner(context.Context, etcdmembers.Learner) (etcdmembers.Joined, error)
}

// requestTimeout bounds what is asked of the API server and of etcd for one request.
const requestTimeout = 10 * time.Second

// retryAfter is when, in seconds, to try again what cannot be done right now.
const retryAfter = 1

type handler struct {
	layout    host.Layout
	clusterID string
	founded   map[string]string
	auth      *authenticator
	members   Members
	log       *slog.Logger
}

func newHandler(o Options, tokens TokenSource, members Members) http.Handler {
	return &handler{layout: o.Layout, clusterID: o.ClusterID(), founded: o.Founded, auth: newAuthenticator(tokens, o.Log), members: members, log: o.Log}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var method string
	var answer func(context.Context, *attempt, *http.Request) (any, error)
	switch {
	case r.URL.Path == caPath:
		method, answer = http.MethodGet, h.ca
	case r.URL.Path == membersPath && h.members != nil:
		method, answer = http.MethodPost, h.join
	default:
		refuse(w, http.StatusNotFound, "not found")
		return
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		refuse(w, http.StatusMethodNotAllowed, "only "+method+" here")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	tokenID, ok := h.auth.admit(ctx, w, r)
	if !ok {
		return
	}
	trustConn(r.Context())
	a := &attempt{begin: time.Now()}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	body, err := answer(ctx, a, r)
	status := http.StatusOK
	if err != nil {
		status = statusOf(err)
	}
	// What somebody with the right token asks for is always told.
	log := h.log.With("request", method+" "+r.URL.Path, "token", tokenID, "client", r.RemoteAddr,
		"node", a.node, "peer", a.peer, "status", status, "took", time.Since(a.begin).Round(time.Millisecond))
	if err != nil {
		log.Warn("A controller that joins was not served", "reason", err)
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		}
		refuse(w, status, err.Error())
		return
	}
	log.Info("A controller joins")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(body)
}

// attempt is what is told of a request.
type attempt struct {
	begin      time.Time
	node, peer string
}

// badRequest is the client's mistake.
type badRequest struct{ error }

func statusOf(err error) int {
	var conflict *etcdmembers.Conflict
	switch {
	case errors.As(err, new(badRequest)):
		return http.StatusBadRequest
	case errors.As(err, &conflict):
		return http.StatusConflict
	case errors.Is(err, etcdmembers.ErrBusy):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, reason+"\n")
}

// ca hands out the authority of the cluster, and the key of service account tokens.
func (h *handler) ca(context.Context, *attempt, *http.Request) (any, error) {
	body := caBody{ClusterID: h.clusterID, Founded: h.founded}
	l := h.layout
	return body, read(map[string]*[]byte{
		l.PKI("ca.key"): &body.Key, l.PKI("ca.crt"): &body.Cert, l.PKI("sa.key"): &body.SAKey, l.PKI("sa.pub"): &body.SAPub,
		l.PKI("front-proxy-ca.key"): &body.FrontProxyKey, l.PKI("front-proxy-ca.crt"): &body.FrontProxyCert,
	}, &body)
}

// join makes a node a member of etcd, and hands out etcd's authority.
func (h *handler) join(ctx context.Context, a *attempt, r *http.Request) (any, error) {
	learner, err := readLearner(r.Body)
	a.node, a.peer = learner.Name, learner.PeerURL
	if err != nil {
		return nil, err
	}
	// First the keys: a member that could not be told of them would never start.
	var body memberBody
	l := h.layout
	if err := read(map[string]*[]byte{l.PKI("etcd", "ca.key"): &body.CA.Key, l.PKI("etcd", "ca.crt"): &body.CA.Cert}, &body); err != nil {
		return nil, err
	}
	joined, err := h.members.AddLearner(ctx, learner)
	if err != nil {
		return nil, err
	}
	body.InitialCluster, body.MemberID = joined.InitialCluster, strconv.FormatUint(joined.MemberID, 16)
	return body, nil
}

func readLearner(body io.Reader) (l etcdmembers.Learner, err error) {
	var request memberRequest
	decoder := json.NewDecoder(body)
	if err := decoder.Decode(&request); err != nil {
		return l, badRequest{fmt.Errorf("the body is not what it should be: %w", err)}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return l, badRequest{errors.New("something follows the body")}
	}
	if problems := validation.IsDNS1123Subdomain(request.Node); len(problems) > 0 {
		return l, badRequest{fmt.Errorf("%.100q is no node name: %s", request.Node, problems[0])}
	}
	l.Name = request.Node
	if l.PeerURL, err = etcdmembers.PeerURL(request.PeerAddress); err != nil {
		return l, badRequest{err}
	}
	if request.MemberID != "" {
		if l.MemberID, err = strconv.ParseUint(request.MemberID, 16, 64); err != nil {
			return l, badRequest{fmt.Errorf("%.20q is no member id", request.MemberID)}
		}
	}
	return l, nil
}

// read fills in the contents of files; whole is what they are part of.
func read[T any](files map[string]*[]byte, whole *T) error {
	for path, content := range files {
		var err error
		if *content, err = os.ReadFile(path); err != nil {
			var none T
			*whole = none
			return fmt.Errorf("this controller cannot let others join: %w; try another one, or put the file there", err)
		}
	}
	return nil
}
