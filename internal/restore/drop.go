package restore

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// Drop finds the record with which a database's files were removed by its DROP.
func (r *Restore) Drop(ctx context.Context, d backup.Known) (Dropped, error) {
	log, err := r.openLog(ctx)
	if err != nil {
		return Dropped{}, err
	}
	defer log.close()
	at := Dropped{OID: d.OID}
	for i := log.index(d.At); i < len(log.segments) && log.segments[i].Start() < d.GoneAt; i++ {
		records, err := log.read(ctx, i, databaseRecords)
		if err != nil {
			return Dropped{}, err
		}
		for _, record := range records {
			if record.at >= d.At && record.at < d.GoneAt && slices.Contains(droppedIn(record.text), d.OID) {
				// The last one: one before may be of a change of its tablespace.
				at.At, at.Timeline = record.at, log.segments[i].Timeline
			}
		}
	}
	if at.At == 0 {
		return Dropped{}, dropUnknown(d)
	}
	return at, nil
}

func dropUnknown(d backup.Known) error {
	return problem.New(problem.NotFound, "restore_drop_unknown",
		"the DROP of the database %q is not found in the log between %s and %s", d.Name, d.At, d.GoneAt).
		On(d.Name).
		WithHint("restore it to an earlier moment with --at; twinspan database restorable says which")
}

// Dropped is a DROP of a database, or a change of its tablespace, as the log has it.
type Dropped struct {
	OID      uint32
	At       lsn.LSN // where the record begins that removes its files
	Timeline uint32
}

// Drops tells of the databases whose files were removed, the last first, until each wants no more. It reads the log backwards.
func (r *Restore) Drops(ctx context.Context, each func(d Dropped) (more bool, err error)) error {
	log, err := r.openLog(ctx)
	if err != nil {
		return err
	}
	defer log.close()
	for i := len(log.segments) - 1; i >= 0; i-- {
		records, err := log.read(ctx, i, databaseRecords)
		if err != nil {
			return err
		}
		for _, record := range slices.Backward(records) {
			for _, oid := range droppedIn(record.text) {
				more, err := each(Dropped{oid, record.at, log.segments[i].Timeline})
				if err != nil || !more {
					return err
				}
			}
		}
	}
	return nil
}

// databaseRecords is the resource manager of what concerns databases as a whole.
const databaseRecords = "Database"

var dropDir = regexp.MustCompile(`(\d+)/(\d+)`)

// droppedIn lists the OIDs of the databases whose directories a record removes.
func droppedIn(text string) (oids []uint32) {
	dirs, ok := strings.CutPrefix(text, "DROP dir ")
	if !ok {
		return nil
	}
	for _, dir := range dropDir.FindAllStringSubmatch(dirs, -1) {
		if oid, err := strconv.ParseUint(dir[2], 10, 32); err == nil && !slices.Contains(oids, uint32(oid)) {
			oids = append(oids, uint32(oid))
		}
	}
	return oids
}
