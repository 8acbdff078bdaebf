// Package client is the one Go client of an agent's REST interface: the command
// line, the tests and other programs use it. It imports package api alone.
package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
)

// maxBody bounds an answer. The largest is a list of links with their problems.
const maxBody = 64 << 20

// Client speaks to one agent. It is safe for concurrent use. Every method
// returns an *api.Error when the agent refused or could not be reached, and
// waits as long as its context lets it.
type Client struct {
	http  *http.Client
	base  string
	where string // for messages: the socket's path or the URL
	token string

	mu    sync.Mutex
	awake bool // it has answered once
}

// silence is how long an agent may say nothing to the first request, which asks only
// whether it is there. What is asked afterwards may take as long as it needs.
const silence = 15 * time.Second

// wake sees that the agent answers at all: one that has no descriptors left, or is
// stopped, takes the connection and says nothing for ever.
func (c *Client) wake(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awake {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	request, err := http.NewRequestWithContext(bounded, http.MethodGet, c.base+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("request of /healthz: %w", err)
	}
	response, err := c.http.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxBody))
		response.Body.Close()
	}
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return &api.Error{Kind: "transient", Code: "agent_silent", Subject: c.where,
			Text: fmt.Sprintf("the agent at %s has said nothing for %s", c.where, silence),
			Hint: "see in its log and with ps whether it is stopped, or out of file descriptors"}
	}
	if err != nil {
		return c.unreachable(ctx, err)
	}
	c.awake = true
	return nil
}

// Dial names how an agent is reached: over the Unix socket in its directory, over TCP,
// or, within its process, by what answers for it. Exactly one of Socket, URL and Inside
// is given.
type Dial struct {
	Socket string            // path of the Unix socket
	URL    string            // https://host:port
	Token  string            // bearer token, with URL only
	Inside http.RoundTripper // answers requests in this process
}

// New makes a client; nothing is dialled before the first call.
func New(d Dial) (*Client, error) {
	transport := &http.Transport{
		MaxIdleConns:        4,
		IdleConnTimeout:     30 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	c := &Client{http: &http.Client{Transport: transport}, token: d.Token}
	switch {
	case d.Inside != nil && d.Socket == "" && d.URL == "":
		c.base, c.where, c.http = "http://agent", "this process", &http.Client{Transport: d.Inside}
		return c, nil
	case d.Inside != nil: // and another way, too
	case d.Socket != "" && d.URL == "":
		c.base, c.where = "http://agent", d.Socket
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", d.Socket)
		}
		return c, nil
	case d.URL != "" && d.Socket == "":
		u, err := url.Parse(d.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
			return nil, &api.Error{Kind: "invalid", Code: "api_url_invalid", Text: "the address of the API cannot be read",
				Hint: "write it as https://host:port; the token is given apart"}
		}
		if d.Token == "" {
			return nil, &api.Error{Kind: "unauthorised", Code: "token_missing", Text: "the API over TCP needs a token",
				Hint: "give --token, or set TWINSPAN_TOKEN; init --api printed it"}
		}
		c.base, c.where = "https://"+u.Host, "https://"+u.Host
		transport.DialContext = dialer.DialContext
		transport.Proxy = http.ProxyFromEnvironment
		transport.TLSClientConfig = Trust(d.Token, u.Hostname())
		return c, nil
	}
	return nil, &api.Error{Kind: "invalid", Code: "agent_not_named", Text: "no agent is named",
		Hint: "give --dir DIR or set TWINSPAN_DIR, or give --api URL --token TOKEN"}
}

// Trust says which certificates are believed: the one whose key the token
// names, or any that the system's roots vouch for. The token is never sent
// before that is settled, for it goes with the first request.
func Trust(token, host string) *tls.Config {
	pin := Pin(token)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// Verified below instead: an agent's own certificate has no authority.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
			if pin != nil && subtle.ConstantTimeCompare(pin, sum[:]) == 1 {
				return nil
			}
			others := x509.NewCertPool()
			for _, cert := range state.PeerCertificates[1:] {
				others.AddCert(cert)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Intermediates: others}); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
			}
			return nil
		},
	}
}

// Pin returns the SHA-256 of the agent's public key that a token carries as its
// last part, or nil for a token without one.
func Pin(token string) []byte {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	pin, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(pin) != sha256.Size {
		return nil
	}
	return pin
}

// Close gives back idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call sends in as JSON, when it is not nil, and reads the answer into out, when
// that is not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("request of %s: %w", path, err)
		}
		body = bytes.NewReader(text)
	}
	if err := c.wake(ctx); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("request of %s: %w", path, err)
	}
	request.Header.Set("Accept", "application/json")
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return c.unreachable(ctx, err)
	}
	if response.StatusCode >= 300 {
		return refusal(response, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return &api.Error{Status: response.StatusCode, Kind: "incompatible", Code: "answer_not_understood",
			Text: "the agent's answer cannot be read", Hint: "use the same version of twinspan on both ends"}
	}
	return nil
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return &api.Error{Kind: "unauthorised", Code: "api_not_trusted", Subject: c.where,
			Text: "the agent at " + c.where + " shows a certificate that the token does not vouch for",
			Hint: "use a token that was made for this agent"}
	}
	var inner *net.OpError
	reason := err
	if errors.As(err, &inner) && inner.Err != nil {
		reason = inner.Err
	}
	hint := "start it with: twinspan serve --dir DIR"
	if strings.HasPrefix(c.where, "https://") {
		hint = "see that the agent runs with [api] listen in its twinspan.toml, and that the address is reached from here"
	}
	return &api.Error{Kind: "transient", Code: "agent_unreachable", Subject: c.where,
		Text: fmt.Sprintf("no agent answers at %s: %v", c.where, reason), Hint: hint}
}

// refusal rebuilds the error that the agent sent.
func refusal(response *http.Response, text []byte) error {
	e := &api.Error{}
	if err := json.Unmarshal(text, e); err != nil || e.Code == "" {
		e = &api.Error{Kind: "incompatible", Code: "answer_not_understood",
			Text: fmt.Sprintf("the address answers %q, not as an agent does", response.Status),
			Hint: "see that the address is that of a twinspan agent of this version"}
	}
	e.Status = response.StatusCode
	return e
}
