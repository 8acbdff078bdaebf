package pgtest

import (
	"testing"
)

// Each version that is here loads the library, and labels with it.
func TestLabelProviderIsLoaded(t *testing.T) {
	if !CanLabel() {
		return // no library for this machine is known
	}
	s := Start(t)
	dsn := s.DSN(s.Database(t))
	if _, err := Try(t.Context(), dsn, `SECURITY LABEL ON SCHEMA public IS 'before'`); err == nil {
		t.Fatal("the server has a provider of its own")
	}
	s.LoadLabelProvider(t)
	Exec(t, dsn, `SECURITY LABEL ON SCHEMA public IS 'shown'`)
	if got := Query(t, dsn, `SELECT provider, label FROM pg_seclabels`); len(got) != 1 || got[0][0] != LabelProvider || got[0][1] != "shown" {
		t.Errorf("labels: %v", got)
	}
}
