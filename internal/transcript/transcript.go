// Package transcript is test support: it keeps what a log or a program writes while the test
// reads it.
package transcript

import (
	"bytes"
	"strings"
	"sync"
)

// Buffer keeps what is written to it. All methods are safe for concurrent use; the zero value
// is empty.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Count says how often a text was written.
func (b *Buffer) Count(text string) int { return strings.Count(b.String(), text) }
