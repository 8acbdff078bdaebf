package member

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// beforeEtcd writes etcd's configuration. An etcd without data is one that begins, or one whose data was lost: then the others are told to
// forget what it was, or it would vote as one that has forgotten what it had agreed to.
func (c *Cluster) beforeEtcd(ctx context.Context) error {
	record := c.Record()
	self := record.Self
	if _, err := os.Stat(filepath.Join(c.places.etcdData(), "member", "wal")); err == nil {
		text, err := etcdConfig(self, record.Scope, c.places, map[string]string{self.Name: self.peerURL()}, false)
		if err != nil {
			return err
		}
		return c.put(c.places.etcdConfig(), text)
	}
	if err := os.RemoveAll(c.places.etcdData()); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "clear the directory of etcd")
	}
	if err := c.Server.MakeDir(c.places.etcdData()); err != nil {
		return err
	}
	initial := map[string]string{self.Name: self.peerURL()}
	fresh := record.Founder && len(record.Others) == 0
	if !fresh {
		all, err := c.rejoin(ctx, self)
		if err != nil {
			return err
		}
		initial = all
	}
	text, err := etcdConfig(self, record.Scope, c.places, initial, fresh)
	if err != nil {
		return err
	}
	return c.put(c.places.etcdConfig(), text)
}

// rejoin makes sure that the others expect this etcd as one that begins, and returns all of them.
func (c *Cluster) rejoin(ctx context.Context, self Member) (map[string]string, error) {
	for {
		all, err := c.etcd.members(ctx)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(all, func(v voter) bool { return slices.Contains(v.Peers, self.peerURL()) })
		switch {
		case at >= 0 && all[at].Name == "": // expected
			initial := map[string]string{}
			for i, v := range all {
				name := v.Name
				if i == at {
					name = self.Name
				}
				for _, url := range v.Peers {
					initial[firstOf(name, memberID(v.ID))] = url
				}
			}
			return initial, nil
		case at >= 0:
			c.Log.Warn("the data of this member's etcd is lost: it begins anew", "etcd", memberID(all[at].ID))
			if err := c.etcd.remove(ctx, all[at].ID); err != nil {
				return nil, err
			}
		default:
			if known, err := c.known(ctx, self.Name); err != nil {
				return nil, err
			} else if !known {
				return nil, errRemoved(self.Name)
			}
			if err := c.etcd.addLearner(ctx, self.peerURL()); err != nil {
				return nil, err
			}
		}
	}
}

// known says whether the instance has a member of a name.
func (c *Cluster) known(ctx context.Context, name string) (bool, error) {
	list, err := c.list(ctx)
	return slices.ContainsFunc(list, func(m Member) bool { return m.Name == name }), err
}

func errRemoved(name string) *problem.Error {
	return problem.New(problem.Conflict, "member_removed", "the member %s was removed from the instance", name).On(name).
		WithHint("its directory is of no use any more; twinspan member join, in a new directory, makes another member of this host")
}

// list returns the instance's members, as etcd has them.
func (c *Cluster) list(ctx context.Context) ([]Member, error) {
	found, err := c.etcd.under(ctx, c.memberKey(""))
	if err != nil {
		return nil, err
	}
	var list []Member
	for _, p := range found {
		var m Member
		if err := json.Unmarshal(p.value, &m); err != nil {
			return nil, sealProblem(err)
		}
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
