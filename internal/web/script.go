package web

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/terminal"
)

// script is what does the same as a wizard: command lines, and requests to the REST
// interface.
type script struct {
	Lines []string
	Calls []call
}

// call is a request.
type call struct {
	Method, Path string
	Body         string // JSON; empty for none
}

// command adds a command line of words, and of flags as flag and toggle make them. Empty
// ones are left out.
func (s *script) command(words ...string) {
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	s.Lines = append(s.Lines, "twinspan "+strings.Join(words, " "))
}

// request adds a request.
func (s *script) request(method, path string, body any) error {
	c := call{Method: method, Path: path}
	if body != nil {
		text, err := json.MarshalIndent(body, "", "  ")
		if err != nil {
			return fmt.Errorf("script: %w", err)
		}
		c.Body = string(text)
	}
	s.Calls = append(s.Calls, c)
	return nil
}

// flag is a flag with its value, as a shell reads it back, or nothing where the value is empty.
func flag(name, value string) string {
	if value == "" {
		return ""
	}
	return "--" + name + "=" + terminal.Quoted(value)
}

// toggle is a flag without a value, where it is set.
func toggle(name string, set bool) string {
	if !set {
		return ""
	}
	return "--" + name
}

func linkPath(name string) string { return "/v1/links/" + url.PathEscape(name) }

// ofFailover does the same as the wizard that fails a link over.
func ofFailover(name string, in api.FailoverRequest) (s script, err error) {
	drain := ""
	if in.DrainSeconds > 0 {
		drain = fmt.Sprintf("%gs", in.DrainSeconds)
	}
	kind := ""
	if in.Type == api.Forced {
		kind = string(in.Type)
	}
	plan := fmt.Sprintf("%s/failover/plan?type=%s&cutover=%t&drainSeconds=%g", linkPath(name), in.Type, in.Cutover, in.DrainSeconds)
	s.command("link", "failover", name, flag("type", kind), toggle("cutover", in.Cutover), flag("drain-timeout", drain), "--plan")
	s.command("link", "failover", name, flag("type", kind), toggle("cutover", in.Cutover), flag("drain-timeout", drain), toggle("accept-data-loss", in.AcceptDataLoss), toggle("insist", in.Insist))
	s.command("link", "failover", name, "--status")
	for _, err := range []error{s.request("GET", plan, nil), s.request("POST", linkPath(name)+"/failover", in), s.request("GET", linkPath(name)+"/failover", nil)} {
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// ofCreation does the same as the wizard that makes links.
func ofCreation(all []api.CreateLink) (s script, err error) {
	for _, in := range all {
		peerDatabase := ""
		if in.PeerDatabase != in.Database {
			peerDatabase = in.PeerDatabase
		}
		mode, timeout := "", ""
		if in.Mode == api.Sync {
			mode = string(in.Mode)
			if t := in.SyncTimeoutSeconds; t != nil {
				if timeout = fmt.Sprintf("%ds", *t); *t == 0 {
					timeout = "wait"
				}
			}
		}
		rate := ""
		if in.MaxRate > 0 {
			rate = fmt.Sprintf("%dMB", in.MaxRate/megabyte)
		}
		s.command("check", flag("database", in.Database), flag("peer", in.Peer), flag("peer-database", peerDatabase))
		s.command("link", "create", in.Name, flag("database", in.Database), flag("peer", in.Peer), flag("peer-database", peerDatabase), flag("mode", mode), flag("sync-timeout", timeout),
			toggle("from-peer", in.FromPeer), toggle("create-roles", in.CreateRoles), toggle("with-passwords", in.WithPasswords), flag("max-rate", rate), flag("accept", strings.Join(in.Accept, ",")))
		if err := s.request("POST", "/v1/check", api.CheckRequest{Database: in.Database, Peer: in.Peer, PeerDatabase: peerDatabase}); err != nil {
			return s, err
		}
		if err := s.request("POST", "/v1/links", in); err != nil {
			return s, err
		}
	}
	return s, nil
}

// ofRejoin does the same as the wizard that makes a former primary the twin.
func ofRejoin(name string, accept []string) (s script, err error) {
	s.command("link", "rejoin", name, "--plan")
	s.command("link", "rejoin", name, flag("accept", strings.Join(accept, ",")))
	if err := s.request("GET", linkPath(name)+"/rejoin", nil); err != nil {
		return s, err
	}
	return s, s.request("POST", linkPath(name)+"/rejoin", api.Rejoin{Accept: accept})
}
