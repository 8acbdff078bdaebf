package pgtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// prepared are directories of servers that have not run yet, by what initdb made them with.
// A copy takes a fifth of the processor's time that initdb takes.
var prepared struct {
	sync.Mutex
	dirs map[string]string
}

// init makes the server's directory: a copy of a prepared one, with a system identifier of
// its own. Without Main nobody would remove what was prepared.
func (s *Server) init(ctx context.Context) error {
	if !hasEnd.Load() {
		return s.prototype().Init(ctx)
	}
	from, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", from+"/.", s.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("copy a prepared directory: %w: %s", err, out)
	}
	return identify(s.DataDir())
}

// prepare returns the prepared directory, which it makes at first.
func (s *Server) prepare(ctx context.Context) (string, error) {
	prepared.Lock()
	defer prepared.Unlock()
	key := fmt.Sprintf("%s %q %t", s.binaries.Dir, s.options.initdbArgs, s.options.noTLS)
	if dir, have := prepared.dirs[key]; have {
		return dir, nil
	}
	dir, err := makeDir(inMemory(false)...)
	if err != nil {
		return "", err
	}
	first := &Server{Major: s.Major, binaries: s.binaries, dir: dir, options: options{initdbArgs: s.options.initdbArgs, noTLS: s.options.noTLS}}
	if err := first.prototype().Init(ctx); err != nil {
		_ = os.RemoveAll(dir)
		return "", err
	}
	if prepared.dirs == nil {
		prepared.dirs = map[string]string{}
	}
	prepared.dirs[key] = dir
	return dir, nil
}

// removePrepared removes what was prepared.
func removePrepared() {
	prepared.Lock()
	defer prepared.Unlock()
	for _, dir := range prepared.dirs {
		_ = os.RemoveAll(dir)
	}
	prepared.dirs = nil
}

// identify gives a data directory that initdb made another system identifier, which is in
// the control file (src/include/catalog/pg_control.h, its first field) and in the long
// header of each segment of the log (src/include/access/xlog_internal.h).
func identify(data string) error {
	path := filepath.Join(data, "global", "pg_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// What it holds grows from version to version, and ends with its CRC-32C.
	end := 0
	for n := 200; n+4 <= min(len(control), 512); n += 4 {
		if crc32.Checksum(control[:n], castagnoli) == binary.LittleEndian.Uint32(control[n:]) {
			end = n
			break
		}
	}
	if end == 0 {
		return fmt.Errorf("%s has no checksum where one should be", path)
	}
	was := binary.LittleEndian.Uint64(control)
	id := was ^ uint64(rand.Uint32()|1)
	binary.LittleEndian.PutUint64(control, id)
	binary.LittleEndian.PutUint32(control[end:], crc32.Checksum(control[:end], castagnoli))
	if err := os.WriteFile(path, control, 0o600); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(data, "pg_wal", "????????????????????????"))
	if err != nil || len(segments) == 0 {
		return fmt.Errorf("%d segments of the log in %s, %v", len(segments), data, err)
	}
	for _, segment := range segments { // several where they are small
		if err := identifySegment(segment, was, id); err != nil {
			return err
		}
	}
	return nil
}

func identifySegment(path string, was, id uint64) error {
	log, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	var there [8]byte
	const at = 24 // behind the short header
	if _, err := log.ReadAt(there[:], at); err != nil {
		return err
	}
	switch binary.LittleEndian.Uint64(there[:]) {
	case 0: // not written yet
		return nil
	case was:
	default:
		return fmt.Errorf("%s does not belong to its control file", path)
	}
	binary.LittleEndian.PutUint64(there[:], id)
	if _, err := log.WriteAt(there[:], at); err != nil {
		return err
	}
	return log.Close()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
