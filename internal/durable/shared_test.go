package durable_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// What is stored in a file's memory is in the file, and a file that is cut short takes
// no process down.
func TestMemory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(name, make([]byte, 16<<10), 0o600))
	f, err := durable.OS.OpenFile(name, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	m, err := durable.Map(f, 16<<10)
	if errors.Is(err, errors.ErrUnsupported) && runtime.GOOS != "linux" {
		t.Skip("files are mapped on Linux")
	}
	check(t, err)
	_, err = m.WriteAt(newContent[:5000], 9000)
	check(t, err)
	got, err := os.ReadFile(name)
	check(t, err)
	if !bytes.Equal(got[9000:14000], newContent[:5000]) {
		t.Error("what was stored is not in the file")
	}
	for _, at := range []int64{-1, 16<<10 - 4, 1 << 40} {
		if _, err := m.WriteAt([]byte("12345"), at); err == nil {
			t.Errorf("5 bytes at %d were written", at)
		}
	}
	check(t, f.Truncate(4<<10))
	if _, err := m.WriteAt(newContent[:100], 8<<10); err == nil {
		t.Error("bytes were written where the file has none any more")
	}
	_, err = m.WriteAt(newContent[:100], 0)
	check(t, err)
	check(t, m.Close())
	if _, err := m.WriteAt(newContent[:1], 0); err == nil {
		t.Error("bytes were written after the end")
	}
}

// A write that nobody waits for in a call is there when it returns, and its error is
// told.
func TestAsync(t *testing.T) {
	// It is for ext4 and xfs: a machine whose temporary files are elsewhere may have
	// the checkout there.
	for _, dir := range []string{t.TempDir(), "."} {
		if kind, err := durable.FileSystemOf(dir); err == nil && (kind.Name == "ext4" || kind.Name == "xfs") {
			testAsync(t, dir)
			return
		}
	}
	t.Skip("neither temporary files nor the checkout are on ext4 or xfs")
}

func testAsync(t *testing.T, dir string) {
	tmp, err := os.CreateTemp(dir, "async-")
	check(t, err)
	name := tmp.Name()
	defer os.Remove(name)
	check(t, tmp.Close())
	check(t, os.WriteFile(name, make([]byte, 64<<10), 0o600))
	f, err := durable.OS.OpenFile(name, os.O_RDWR|durable.Direct, 0)
	check(t, err)
	a, err := durable.NewAsync(f)
	check(t, err)
	room := make([]byte, 12<<10)
	block := room[4<<10-int(uintptr(unsafe.Pointer(&room[0]))%(4<<10)):][:8<<10]
	for i := range 8 {
		for k := range block {
			block[k] = byte('a' + i)
		}
		check(t, a.WriteSync(block, int64(i)*8<<10))
	}
	got, err := os.ReadFile(name)
	check(t, err)
	for i := range 8 {
		if part := got[i*8<<10 : (i+1)*8<<10]; !bytes.Equal(part, bytes.Repeat([]byte{byte('a' + i)}, 8<<10)) {
			t.Errorf("block %d is not what was written", i)
		}
	}
	if err := a.WriteSync(block, -8<<10); err == nil {
		t.Error("a block was written before the file's beginning")
	}
	check(t, a.WriteSync(block, 0)) // one that failed leaves nothing behind
	check(t, a.Close())
	check(t, f.Close())
}
