package joinapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"k0s.io/k0s/pkg/token"
)

// Kinds of errors that do not pass by themselves. All others are tried again for as long as the caller waits.
var (
	// ErrToken: the service does not accept the token.
	ErrToken = errors.New("the join token is not accepted")
	// ErrCertificate: the server is not the one that the token was made for.
	ErrCertificate = errors.New("the server's certificate is not right")
	// ErrNotJoinAPI: what answers is no join API.
	ErrNotJoinAPI = errors.New("there is no join API")
	// ErrRefused: a controller refuses this host, and says why.
	ErrRefused = errors.New("the controller refuses this host")
)

// Client joins a cluster.
type Client struct {
	join     token.Join
	http     *http.Client
	progress func(error)
	backoff  time.Duration // the first; doubled each time up to maxBackoff
}

const (
	attemptTimeout = 15 * time.Second
	firstBackoff   = 500 * time.Millisecond
	maxBackoff     = 15 * time.Second
	maxAnswer      = 1 << 20
)

// NewClient returns a client for the controllers that the token leads to. progress is told of each attempt
// that failed and will be repeated; nil for nobody.
func NewClient(join *token.Join, progress func(error)) (*Client, error) {
	if join.Role != token.Controller {
		return nil, fmt.Errorf("a %s token is no key to the join API", join.Role)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(join.CA) {
		return nil, errors.New("there is no certificate of the cluster's authority in the join token")
	}
	if progress == nil {
		progress = func(error) {}
	}
	return &Client{join: *join, progress: progress, backoff: firstBackoff, http: &http.Client{
		// Controllers reach each other directly: etcd would not work through a proxy either.
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DialContext:     (&net.Dialer{Timeout: attemptTimeout}).DialContext,
			IdleConnTimeout: time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// CA is what a controller shares with all others, as PEM.
type CA struct {
	Key, Cert    []byte
	SAKey, SAPub []byte
	// ClusterID is empty if the other controller is not one of ours.
	ClusterID string
	// FrontProxyKey and FrontProxyCert are empty, too, then.
	FrontProxyKey, FrontProxyCert []byte
	// Founded are the values of k0s.yaml that all controllers must have in common, by path.
	Founded map[string]string
}

// CA asks for the keys of the cluster until it gets them, ctx ends, or it is clear that it never will.
func (c *Client) CA(ctx context.Context) (*CA, error) {
	var body caBody
	err := c.persist(ctx, "getting the cluster's keys", http.MethodGet, caPath, nil, &body, func() error {
		if len(body.Key) == 0 || len(body.Cert) == 0 || len(body.SAKey) == 0 || len(body.SAPub) == 0 {
			return errors.New("a key is missing in its answer")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &CA{body.Key, body.Cert, body.SAKey, body.SAPub, body.ClusterID, body.FrontProxyKey, body.FrontProxyCert, body.Founded}, nil
}

// EtcdRequest says who wants to be a member of etcd.
type EtcdRequest struct {
	// Node is the name of the node, and of the member.
	Node string
	// PeerAddress is the address, or https:// URL, that this host's etcd has for its peers.
	PeerAddress string
	// MemberID is that of the member whose data is on this disk; 0 when there is none. Without it a learner
	// that has begun already is replaced by a new one when it does not run.
	MemberID uint64
}

// Etcd is what the new member of etcd starts with.
type Etcd struct {
	CAKey, CACert []byte
	// InitialCluster are all members as NAME=PEERURL.
	InitialCluster []string
	// MemberID is the new member's; data of another must be removed before etcd is started. It is 0 if the
	// other controller is not one of ours.
	MemberID uint64
}

// JoinEtcd makes this host a member of etcd, without a vote at first. It asks until it is one, ctx ends, or it
// is clear that it never will. It may be repeated.
func (c *Client) JoinEtcd(ctx context.Context, r EtcdRequest) (*Etcd, error) {
	request := memberRequest{Node: r.Node, PeerAddress: r.PeerAddress}
	if r.MemberID != 0 {
		request.MemberID = strconv.FormatUint(r.MemberID, 16)
	}
	content, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	var body memberBody
	var id uint64
	err = c.persist(ctx, "becoming a member of etcd", http.MethodPost, membersPath, content, &body, func() error {
		if len(body.CA.Key) == 0 || len(body.CA.Cert) == 0 || len(body.InitialCluster) == 0 {
			return errors.New("a key, or the list of members, is missing in its answer")
		}
		if body.MemberID == "" {
			return nil
		}
		id, err = strconv.ParseUint(body.MemberID, 16, 64)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Etcd{CAKey: body.CA.Key, CACert: body.CA.Cert, InitialCluster: body.InitialCluster, MemberID: id}, nil
}

// persist makes a request until it is answered well.
func (c *Client) persist(ctx context.Context, what, method, path string, content []byte, answer any, check func() error) error {
	url := strings.TrimSuffix(c.join.URL, "/") + path
	describe := func(err error) error { return fmt.Errorf("%s from %s: %w", what, url, err) }
	backoff := c.backoff
	for {
		wait, err := c.attempt(ctx, method, url, content, answer)
		if err == nil {
			if err := check(); err != nil {
				return describe(fmt.Errorf("%w at this address: %w", ErrNotJoinAPI, err))
			}
			return nil
		}
		if ctx.Err() != nil {
			return describe(fmt.Errorf("given up: %w (last attempt: %w)", context.Cause(ctx), err))
		}
		if isFinal(err) {
			return describe(err)
		}
		wait = max(wait, backoff)
		backoff = min(2*backoff, maxBackoff)
		c.progress(describe(fmt.Errorf("%w; trying again in %s", err, wait)))
		select {
		case <-ctx.Done():
			return describe(fmt.Errorf("given up: %w (last attempt: %w)", context.Cause(ctx), err))
		case <-time.After(wait):
		}
	}
}

func isFinal(err error) bool {
	return errors.Is(err, ErrToken) || errors.Is(err, ErrCertificate) || errors.Is(err, ErrNotJoinAPI) || errors.Is(err, ErrRefused)
}

// attempt also returns how long the server wants it to wait before the next.
func (c *Client) attempt(ctx context.Context, method, url string, content []byte, answer any) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+c.join.Secret.Bearer())
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, explain(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("reading the answer: %w", err)
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		wait = min(time.Duration(seconds)*time.Second, maxBackoff)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, answer); err != nil {
			return 0, fmt.Errorf("%w at this address: what answers says something else (%.60q)", ErrNotJoinAPI, body)
		}
		return 0, nil
	}
	return wait, refusal(resp.StatusCode, oneLine(body))
}

// refusal is what a status other than 200 means.
func refusal(status int, said string) error {
	switch {
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%w: it has expired, was invalidated, or is another cluster's: make a new one with `k0s token create --role controller`", ErrToken)
	case status == http.StatusConflict:
		return fmt.Errorf("%w: %s", ErrRefused, said)
	case status == http.StatusBadRequest:
		return fmt.Errorf("%w: it does not understand the request: %s", ErrRefused, said)
	case status == http.StatusTooManyRequests || status >= 500:
		return fmt.Errorf("the controller answers %d: %s", status, said)
	}
	return fmt.Errorf("%w at this address: what answers says %d: %s (a joining controller needs the join API, spec.api.k0sApiPort, of a cluster "+
		"that runs its own etcd or a shared database)", ErrNotJoinAPI, status, said)
}

// explain tells apart why there was no answer.
func explain(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("%w: it is not signed by the authority in the join token, so this is another cluster, or something else than k0s: "+
			"check the address, or make a new token there", ErrCertificate)
	case errors.As(err, &name):
		return fmt.Errorf("%w: %w: add the name to spec.api.sans on the controllers", ErrCertificate, name)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the server's certificate is not valid now: %w: compare the clocks of both hosts", invalid)
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %w", ErrCertificate, invalid)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%w at this address: what answers does not speak TLS", ErrNotJoinAPI)
	}
	return err
}

// oneLine makes what a server said fit into a message.
func oneLine(body []byte) string {
	const limit = 600
	line := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(body), ""))
	line = strings.Join(strings.Fields(line), " ")
	if len(line) > limit {
		line = strings.ToValidUTF8(line[:limit], "") + "…"
	}
	return line
}
