package httpapi

import (
	"context"
	"net/http"

	"github.com/twinspan/twinspan/api"
)

// lost are the operations about what forced failovers have left behind.
func (r *routes) lost() {
	add(r, "links", http.MethodGet, "/v1/links/{name}/lost", "getLost", "Say what forced failovers of a link have left behind",
		func(ctx context.Context, in *named) (api.Lost, error) {
			return lost(r.agent.Lost(ctx, in.Name))
		})
	add(r, "links", http.MethodGet, "/v1/links/{name}/lost/{epoch}", "getLostTransactions", "List the transactions that a forced failover has left behind",
		func(ctx context.Context, in *lostPage) (api.LostPage, error) {
			if !mayReadRows(ctx) {
				return api.LostPage{}, errRows
			}
			page, err := r.agent.LostPage(ctx, in.Name, in.Epoch, in.After, in.Limit, in.SQL)
			page.Transactions = list(page.Transactions)
			for i := range page.Transactions {
				t := &page.Transactions[i]
				t.Changes = list(t.Changes)
				for j := range t.Changes {
					c := &t.Changes[j]
					c.Key, c.Old, c.New = list(c.Key), list(c.Old), list(c.New)
				}
			}
			return page, err
		})
	add(r, "links", http.MethodDelete, "/v1/links/{name}/lost", "discardLost", "Forget the transactions that forced failovers have left behind",
		func(ctx context.Context, in *discard) (api.Lost, error) {
			return lost(r.agent.DiscardLost(ctx, in.Name, in.Epoch))
		})
	add(r, "links", http.MethodGet, "/v1/links/{name}/rejoin", "getRejoinPlan", "Say what it takes to make a former primary a twin again",
		func(ctx context.Context, in *named) (api.RejoinPlan, error) {
			p, err := r.agent.RejoinPlan(ctx, in.Name)
			p.Needs, p.Tables, p.Reseed = list(p.Needs), list(p.Tables), list(p.Reseed)
			p.Drop, p.Keep, p.Irreversible, p.Build, p.Stays = list(p.Drop), list(p.Keep), list(p.Irreversible), list(p.Build), list(p.Stays)
			return p, err
		})
	add(r, "links", http.MethodPost, "/v1/links/{name}/rejoin", "rejoinLink", "Make a former primary a twin again",
		func(ctx context.Context, in *namedWith[api.Rejoin]) (api.Link, error) {
			l, err := r.agent.Rejoin(ctx, in.Name, in.Body)
			return complete(l), err
		})
}

// lost keeps the promise that lists are never null.
func lost(l api.Lost, err error) (api.Lost, error) {
	l.Partings = list(l.Partings)
	for i := range l.Partings {
		l.Partings[i].Tables = list(l.Partings[i].Tables)
	}
	return l, err
}
