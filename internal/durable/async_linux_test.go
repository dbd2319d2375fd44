//go:build amd64 || arm64 || loong64 || riscv64

package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Many files are given to the kernel at once, a group at a time, and one that can't be
// synced is told and keeps nobody from syncing others so afterwards.
func TestSyncTogether(t *testing.T) {
	dir := t.TempDir()
	var files []File
	for i := range syncsAtOnce + 20 {
		f, err := OS.OpenFile(filepath.Join(dir, fmt.Sprint(i)), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, 8<<10)); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	for range 2 {
		n, err := syncTogether(files)
		if err != nil || n != syncsAtOnce {
			t.Fatalf("%d of %d files, %v", n, len(files), err)
		}
		if n, err := syncTogether(files[n:]); err != nil || n != 20 {
			t.Fatalf("%d of the others, %v", n, err)
		}
		if err := SyncAll(files); err != nil {
			t.Fatal(err)
		}
		closed, err := OS.OpenFile(filepath.Join(dir, "closed"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := closed.Close(); err != nil {
			t.Fatal(err)
		}
		bad := append(append([]File{}, files[:5]...), closed, files[6])
		if err, ok := SyncAll(bad).(*fs.PathError); !ok || err.Path != closed.Name() {
			t.Fatalf("a file that is closed: %v", err)
		}
	}
}
