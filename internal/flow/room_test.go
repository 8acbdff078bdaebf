package flow

import "testing"

// However many links there are, each can work, and together they stay within the memory
// as long as that is possible.
func TestRoomIsSharedByLinks(t *testing.T) {
	for _, links := range []int{0, 1, 2, 8, 9, 50, 64, 100, 1000} {
		items, bytes := Room(links)
		total := items*itemSize + bytes
		if items < 8 || bytes < 2<<20 || total > mostMemory {
			t.Errorf("%d links: %d items, %d bytes for each", links, items, bytes)
		}
		if total > leastMemory && links*total > linksMemory {
			t.Errorf("%d links take %d MB", links, links*total>>20)
		}
	}
	if items, bytes := Room(1); items != 64 || bytes != 16<<20 {
		t.Errorf("one link has room for %d items and %d bytes", items, bytes)
	}
}
