package side

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
)

// Agreed says whether somebody agreed to what a code is about, on this side.
func (s *Side) Agreed(ctx context.Context, code string) (agreed bool, err error) {
	r := s.Record()
	err = s.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		list, err := catalog.Consents(ctx, conn, r.ID)
		agreed = slices.Contains(list, code)
		return err
	})
	return agreed, err
}

// Consent stores what was agreed to, or takes that back.
func (s *Side) Consent(ctx context.Context, code string, given bool) error {
	r := s.Record()
	err := s.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.SetConsent(ctx, conn, r.ID, code, given)
	})
	if err == nil {
		s.Log.Info("agreement changed", "code", code, "given", given)
	}
	return err
}
