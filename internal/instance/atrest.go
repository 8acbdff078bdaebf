package instance

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The kinds of encryption of data at rest that can be seen from the machine.
const (
	EncryptedDevice     = "dm-crypt"    // the block device, or one below it, is dm-crypt's
	EncryptedFileSystem = "file system" // the file system encrypts
	// EncryptionUnknown: this machine does not encrypt, as far as is seen. The disk itself, or what a cloud calls a volume,
	// may: that cannot be seen from here.
	EncryptionUnknown = "unknown"
)

// Encryption is how data at rest below a directory is encrypted.
type Encryption struct {
	Kind   string
	Detail string // the device or the file system, for people
}

// EncryptionAt looks at the file system and the devices on which a directory lies.
func EncryptionAt(dir string) Encryption {
	var stat syscall.Stat_t
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || syscall.Stat(dir, &stat) != nil {
		return Encryption{Kind: EncryptionUnknown}
	}
	return atRest(string(mounts), "/sys", deviceNumber(uint64(stat.Dev)), dir)
}

// deviceNumber writes a device as mountinfo does (makedev(3)).
func deviceNumber(dev uint64) string {
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	return strconv.FormatUint(major, 10) + ":" + strconv.FormatUint(minor, 10)
}

// atRest finds the mount that a directory's device has, by the text of a mountinfo file, and follows its devices in sysfs.
// File systems of several devices (btrfs) have numbers of their own: there the source that was mounted counts.
func atRest(mountinfo, sys, device, dir string) Encryption {
	kind, source := mountedAs(mountinfo, device, dir)
	e := Encryption{Kind: EncryptionUnknown, Detail: kind}
	switch kind {
	case "":
		return e
	case "ecryptfs", "gocryptfs", "fuse.gocryptfs", "fuse.encfs", "fuse.cryfs":
		e.Kind = EncryptedFileSystem
		return e
	}
	name := ""
	if strings.HasPrefix(source, "/dev/") {
		e.Detail += " on " + source
		if real, err := filepath.EvalSymlinks(source); err == nil {
			name = filepath.Base(real)
		}
	}
	block := filepath.Join(sys, "dev/block", device)
	if _, err := os.Stat(block); err != nil {
		if name == "" {
			return e
		}
		block = filepath.Join(sys, "class/block", name)
	}
	if encrypted(block, 0) {
		e.Kind = EncryptedDevice
	}
	return e
}

// mountedAs returns type and source of the mount with a device that holds a directory most closely.
func mountedAs(mountinfo, device, dir string) (kind, source string) {
	longest := -1
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(strings.TrimSpace(line), " - ")
		fields, behind := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 5 || len(behind) < 2 || fields[2] != device {
			continue
		}
		at := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		length := 0 // the directory may be reached by another way, a bind mount
		if at == "/" || dir == at || strings.HasPrefix(dir, at+"/") {
			length = len(at)
		}
		if length > longest {
			longest, kind, source = length, behind[0], behind[1]
		}
	}
	return kind, source
}

// encrypted says whether a block device, or all those below it, are dm-crypt's, whose names in the mapper begin with CRYPT.
func encrypted(block string, depth int) bool {
	const deepest = 8
	uuid, err := os.ReadFile(filepath.Join(block, "dm/uuid"))
	if err == nil && strings.HasPrefix(string(uuid), "CRYPT-") {
		return true
	}
	if _, err := os.Stat(filepath.Join(block, "partition")); err == nil {
		if real, err := filepath.EvalSymlinks(block); err == nil { // of a disk that may be a mapped one
			return depth < deepest && encrypted(filepath.Dir(real), depth+1)
		}
	}
	below, err := os.ReadDir(filepath.Join(block, "slaves"))
	if err != nil || len(below) == 0 || depth >= deepest {
		return false
	}
	for _, b := range below {
		if !encrypted(filepath.Join(block, "slaves", b.Name()), depth+1) {
			return false
		}
	}
	return true
}
