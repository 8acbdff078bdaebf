package member

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/instance"
)

// How long Patroni lets a leader be silent, and how often it looks. 20 s is the least that it takes for a leader's life; a failover then takes less
// than 30 s, also where etcd has to choose a leader of its own first.
const (
	leaderLife   = 20
	loopWait     = 2
	retryTimeout = 5
)

// MemberSlot is how many slots and walsenders are kept for the members themselves, beside those of links.
const memberSlots = 8

// placesOf are the paths of what the server's user reads and writes for a member.
type placesOf struct{ dir string } // the directory of the managed server

func (p placesOf) in(name string) string { return filepath.Join(p.dir, name) }
func (p placesOf) authority() string     { return p.in("member/authority.crt") }
func (p placesOf) certificate() string   { return p.in("member/member.crt") }
func (p placesOf) key() string           { return p.in("member/member.key") }
func (p placesOf) etcdConfig() string    { return p.in("member/etcd.json") }
func (p placesOf) patroniConfig() string { return p.in("member/patroni.json") }
func (p placesOf) passwords() string     { return p.in("member/pgpass") }
func (p placesOf) etcdData() string      { return p.in("etcd") }

// DataDir is the data directory of a member's server, whose own directory is given. Patroni makes it, moves it away and removes it, so what it lies in is the
// server's user's.
func DataDir(server string) string { return filepath.Join(server, "postgres", "data") }

// listenHost is where a member's programs listen: at its address where that is one, else at all addresses of the machine.
func listenHost(host string) string {
	if net.ParseIP(host) != nil {
		return host
	}
	if host == "localhost" {
		return "127.0.0.1"
	}
	return "0.0.0.0"
}

// etcdConfig is the configuration of a member's etcd. initial are all etcd members, by name, as they are when this one begins; fresh says that it begins a
// cluster of its own. JSON is YAML.
func etcdConfig(self Member, scope string, p placesOf, initial map[string]string, fresh bool) ([]byte, error) {
	host := listenHost(self.Host)
	at := func(host string, port int) string { return "https://" + net.JoinHostPort(host, strconv.Itoa(port)) }
	client := []string{at(host, self.Client)}
	if host != "127.0.0.1" && host != "0.0.0.0" {
		client = append(client, at("127.0.0.1", self.Client))
	}
	var cluster []string
	for _, name := range slices.Sorted(maps.Keys(initial)) {
		cluster = append(cluster, name+"="+initial[name])
	}
	state := "existing"
	if fresh {
		state = "new"
	}
	transport := map[string]any{"cert-file": p.certificate(), "key-file": p.key(), "client-cert-auth": true, "trusted-ca-file": p.authority()}
	return marshal(map[string]any{
		"name": self.Name, "data-dir": p.etcdData(), "log-level": "warn",
		"listen-client-urls": strings.Join(client, ","), "advertise-client-urls": self.clientURL(),
		"listen-peer-urls": at(host, self.Peer), "initial-advertise-peer-urls": self.peerURL(),
		"initial-cluster": strings.Join(cluster, ","), "initial-cluster-state": state, "initial-cluster-token": scope,
		"client-transport-security": transport, "peer-transport-security": transport,
		"heartbeat-interval": 250, "election-timeout": 2500,
		"auto-compaction-mode": "periodic", "auto-compaction-retention": "1h",
		// A revision whose data was cut off by a crash is found when the member starts.
		"experimental-initial-corrupt-check": true,
	})
}

// shared are the settings that all servers of an instance must have alike: Patroni keeps them in etcd, and refuses them elsewhere.
var shared = []string{
	"wal_level", "max_connections", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction", "max_replication_slots",
	"max_worker_processes", "hot_standby", "track_commit_timestamp", "wal_log_hints", "cluster_name",
}

// plan is what Patroni's configuration is made of.
type plan struct {
	self     Member
	others   []Member
	scope    string
	places   placesOf
	server   *instance.Server
	password string
}

// patroniConfig is the configuration of a member's Patroni.
func patroniConfig(in plan) ([]byte, error) {
	s, self, p := in.server, in.self, in.places
	local, cluster := map[string]string{}, map[string]string{}
	for name, value := range s.Configured() {
		if slices.Contains(shared, name) {
			cluster[name] = value
		} else {
			local[name] = value
		}
	}
	for _, name := range []string{"max_wal_senders", "max_replication_slots"} {
		if n, err := strconv.Atoi(cluster[name]); err == nil {
			cluster[name] = strconv.Itoa(n + memberSlots)
		}
	}
	maps.Copy(local, map[string]string{
		"ssl": "on", "ssl_cert_file": p.certificate(), "ssl_key_file": p.key(), "ssl_ca_file": p.authority(),
		// Or a slot of a link that a standby keeps would be of no use after a failover.
		"hot_standby_feedback": "on",
		// A commit returns when a standby has it on its disk.
		"synchronous_commit": "on",
		"wal_sender_timeout": "10s", "wal_receiver_timeout": "10s",
	})
	socket := s.SocketDir()
	local["unix_socket_directories"] = socket
	etcds := []string{net.JoinHostPort(self.Host, strconv.Itoa(self.Client))}
	for _, m := range in.others {
		etcds = append(etcds, net.JoinHostPort(m.Host, strconv.Itoa(m.Client)))
	}
	role := func(sslmode string) map[string]any {
		return map[string]any{"username": instance.Superuser, "password": in.password, "sslmode": sslmode, "sslrootcert": p.authority()}
	}
	return marshal(map[string]any{
		"scope": in.scope, "namespace": "/twinspan/", "name": self.Name,
		"log": map[string]any{"level": "INFO", "dir": p.in("member"), "file_num": 3, "file_size": 10 << 20},
		// Everything that is asked of Patroni takes a certificate of the instance's authority.
		"restapi": map[string]any{
			"listen": net.JoinHostPort(listenHost(self.Host), strconv.Itoa(self.REST)), "connect_address": net.JoinHostPort(self.Host, strconv.Itoa(self.REST)),
			"certfile": p.certificate(), "keyfile": p.key(), "cafile": p.authority(), "verify_client": "required",
		},
		"ctl":   map[string]any{"certfile": p.certificate(), "keyfile": p.key(), "cacert": p.authority()},
		"etcd3": map[string]any{"hosts": etcds, "protocol": "https", "cacert": p.authority(), "cert": p.certificate(), "key": p.key()},
		"bootstrap": map[string]any{
			"dcs": map[string]any{
				"ttl": leaderLife, "loop_wait": loopWait, "retry_timeout": retryTimeout, "maximum_lag_on_failover": 16 << 20,
				// A server that crashed is not waited for where another one can lead.
				"primary_start_timeout": 0,
				"synchronous_mode":      true, "synchronous_mode_strict": false,
				// Links make and drop their slots themselves; those that standbys keep, too, are added by the agent that serves (see Cluster.keepSlots).
				"ignore_slots": []any{map[string]any{"type": "logical", "plugin": "pgoutput"}},
				"postgresql":   map[string]any{"use_slots": true, "use_pg_rewind": true, "parameters": cluster},
			},
			"initdb": []any{map[string]any{"encoding": "UTF8"}, map[string]any{"locale": "C.UTF-8"}, map[string]any{"lc-messages": "C"}, "data-checksums"},
		},
		"postgresql": map[string]any{
			"listen": net.JoinHostPort(serverListens(s, self), strconv.Itoa(self.Postgres)), "connect_address": net.JoinHostPort(self.Host, strconv.Itoa(self.Postgres)),
			"data_dir": s.DataDir(), "bin_dir": s.Binaries.Dir, "pgpass": p.passwords(),
			"use_unix_socket": socket != "", "use_unix_socket_repl": socket != "",
			"parameters":     local,
			"authentication": map[string]any{"superuser": role("verify-ca"), "replication": role("verify-ca"), "rewind": role("verify-ca")},
			"pg_hba":         hbaLines(s),
			"basebackup":     []any{map[string]any{"checkpoint": "fast"}},
			// What only the former leader had was never acknowledged.
			"remove_data_directory_on_rewind_failure":     true,
			"remove_data_directory_on_diverged_timelines": true,
		},
		"watchdog": map[string]any{"mode": "off"},
	})
}

// serverListens are the addresses of a member's server, as listen_addresses has them.
func serverListens(s *instance.Server, self Member) string {
	if s.Listen == "*" || net.ParseIP(self.Host) == nil && self.Host != "localhost" {
		return "*"
	}
	list := []string{"127.0.0.1"}
	for _, host := range append(strings.Split(s.Listen, ","), self.Host) {
		if host = strings.TrimSpace(host); host != "" && host != "localhost" && !slices.Contains(list, host) {
			list = append(list, host)
		}
	}
	return strings.Join(list, ",")
}

// hbaLines let the other members in, with TLS and the superuser's password, before whom the operator has named.
func hbaLines(s *instance.Server) []string {
	lines := []string{
		"local all all trust", "local replication all trust",
		fmt.Sprintf("hostssl replication %s all scram-sha-256", instance.Superuser), fmt.Sprintf("hostssl all %s all scram-sha-256", instance.Superuser),
	}
	text := s.HBA
	if text == "" {
		text = instance.HBAFor(nil)
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func marshal(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	return append(text, '\n'), err
}
