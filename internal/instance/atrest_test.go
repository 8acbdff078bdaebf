package instance

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEncryptionAtRest(t *testing.T) {
	sys := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("dev/block/8:1/partition", "1")
	put("dev/block/254:0/dm/uuid", "CRYPT-LUKS2-0123-home\n")
	put("dev/block/254:1/dm/uuid", "LVM-abc\n") // a volume on an encrypted disk
	put("dev/block/254:1/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-0123-disk\n")
	put("dev/block/254:2/dm/uuid", "LVM-def\n") // a volume on two disks, one of which is encrypted
	put("dev/block/254:2/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-0123-disk\n")
	put("dev/block/254:2/slaves/sdb/size", "1\n")
	const mounts = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 254:0 / /home rw - ext4 /dev/mapper/home rw
24 22 254:1 / /var/lib/a\040place rw - xfs /dev/mapper/vg-data rw
25 22 254:2 / /srv rw - xfs /dev/mapper/vg-mixed rw
26 22 0:44 / /mnt rw - ecryptfs /secret rw
27 22 0:45 / /dev/shm rw - tmpfs tmpfs rw
`
	for _, c := range []struct{ device, dir, kind, detail string }{
		{"8:1", "/var/lib/twinspan", EncryptionUnknown, "ext4 on /dev/sda1"},
		{"254:0", "/home/a", EncryptedDevice, "ext4 on /dev/mapper/home"},
		{"254:1", "/var/lib/a place/b", EncryptedDevice, "xfs on /dev/mapper/vg-data"},
		{"254:2", "/srv", EncryptionUnknown, "xfs on /dev/mapper/vg-mixed"},
		{"0:44", "/mnt/x", EncryptedFileSystem, "ecryptfs"},
		{"0:45", "/dev/shm/x", EncryptionUnknown, "tmpfs"},
		{"9:9", "/x", EncryptionUnknown, ""},
	} {
		if got := atRest(mounts, sys, c.device, c.dir); got != (Encryption{c.kind, c.detail}) {
			t.Errorf("%s %s: %+v", c.device, c.dir, got)
		}
	}
	if got := EncryptionAt("/"); got.Kind == "" {
		t.Errorf("%+v", got)
	}
	if got := EncryptionAt(filepath.Join(sys, "missing")); got.Kind != EncryptionUnknown {
		t.Errorf("%+v", got)
	}
}
