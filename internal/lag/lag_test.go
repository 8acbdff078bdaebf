package lag

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// at is a time of the primary's clock.
func at(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

func TestBehind(t *testing.T) {
	const unknown = -1
	for name, c := range map[string]struct {
		heard []lsn.LSN // what was written, one word a second from second 0 on
		stood Stood
		want  int // seconds, at second 100
	}{
		"nothing was heard":                    {nil, Stood{Applied: 50}, unknown},
		"nothing was seen to be there":         {[]lsn.LSN{40, 50}, Stood{Applied: 30}, unknown},
		"all is applied":                       {[]lsn.LSN{40, 50}, Stood{Applied: 50}, 0},
		"more than was heard of":               {[]lsn.LSN{40, 50}, Stood{Applied: 60, Commit: 60}, 0},
		"a transaction more than was heard of": {[]lsn.LSN{40, 50}, Stood{Applied: 55, Commit: 60, LastCommit: at(98)}, 2},
		"since the second word":                {[]lsn.LSN{40, 50, 60}, Stood{Applied: 50}, 99},
		"received, and not applied":            {[]lsn.LSN{40, 50, 60}, Stood{Applied: 45, Commit: 60, Reached: 60}, 100},
		"what is applied committed later":      {[]lsn.LSN{40, 50, 60}, Stood{Applied: 45, Commit: 60, LastCommit: at(70)}, 30},
		"only its commit is known":             {[]lsn.LSN{60}, Stood{Applied: 45, LastCommit: at(70)}, 30},
		"what follows is of others":            {[]lsn.LSN{40, 90}, Stood{Applied: 50, Commit: 50, Reached: 90}, 0},
		"it is, and of the twin as well":       {[]lsn.LSN{40, 90}, Stood{Applied: 50, Commit: 70, Reached: 90}, 100},
		"it was received only in part":         {[]lsn.LSN{40, 90}, Stood{Applied: 50, Commit: 50, Reached: 89}, 100},
		// All that came is applied; what did not come is what it is behind by.
		"it receives slowly": {[]lsn.LSN{40, 5000}, Stood{Applied: 50, Commit: 50, Reached: 50}, 100},
		"clocks go back":     {[]lsn.LSN{40, 50}, Stood{Applied: 40, LastCommit: at(200)}, 0},
	} {
		var track Track
		for i, written := range c.heard {
			track.Hear(Heard{Written: written, At: at(i)})
		}
		got, known := track.Behind(c.stood, at(100))
		if !known {
			got = unknown * time.Second
		}
		if got != time.Duration(c.want)*time.Second {
			t.Errorf("%s: %s, %v", name, got, known)
		}
	}
}

// TestTheSamePositionWasWrittenEarlier: an idle primary says the same again and again, and
// a twin that has it was not behind since the first time.
func TestTheSamePositionWasWrittenEarlier(t *testing.T) {
	var track Track
	for i, written := range []lsn.LSN{10, 50, 50, 50, 0} {
		track.Hear(Heard{Written: written, At: at(i)})
	}
	track.Hear(Heard{Written: 60})
	if got, known := track.Behind(Stood{Applied: 10}, at(9)); got != 9*time.Second || !known {
		t.Errorf("%s, %v", got, known)
	}
	if got, known := track.Behind(Stood{Applied: 50}, at(9)); got != 0 || !known {
		t.Errorf("%s, %v", got, known)
	}
}

// TestTrackIsBounded: a twin that is behind for days costs no more than one that was for
// an hour, and its lag is no smaller than it is.
func TestTrackIsBounded(t *testing.T) {
	const words = 200_000
	var track Track
	for i := range words {
		track.Hear(Heard{Written: lsn.LSN(i + 1), At: at(i)})
	}
	if len(track.heard) > most {
		t.Errorf("%d words are kept", len(track.heard))
	}
	for _, applied := range []int{1, 1000, 100_000, words - 1} {
		got, known := track.Behind(Stood{Applied: lsn.LSN(applied)}, at(words))
		truly := time.Duration(words-applied) * time.Second
		if !known || got < truly || got > truly+words/100*time.Second {
			t.Errorf("with %d applied: %s, %v, in truth %s", applied, got, known, truly)
		}
	}
}
