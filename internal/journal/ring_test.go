package journal

import (
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

// Of two batches that were on their way when the power failed the second alone may
// be in the ring, also where it began a half.
func TestParseRingEndsAtAGap(t *testing.T) {
	m := durabletest.NewMem()
	file, err := m.OpenFile("/ring", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r := &ring{files: [lanes]durable.File{file}, half: 2 * ringBlock}
	for i, arrives := range []bool{true, false, true} {
		var b batch
		b.add([]byte("a line\n"), nil)
		s := r.place(0, 0, int64(7*i), 7)
		if !arrives {
			continue
		}
		if err := s.put(&b); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Truncate(4 * ringBlock); err != nil {
		t.Fatal(err)
	}
	data, err := durable.ReadFile(m, "/ring", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if frames := parseRing(data); len(frames) != 1 || frames[0].seq != 1 {
		t.Errorf("%d frames, want the first alone: %+v", len(frames), frames)
	}
	if _, ok := parseFrame(data[2*ringBlock:]); !ok {
		t.Error("the third frame is not where the second half begins")
	}
}

// cached is a file system that has no way around its page cache.
type cached struct{ durable.FS }

func (c cached) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if durable.Direct != 0 && flag&durable.Direct != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EINVAL}
	}
	return c.FS.OpenFile(name, flag, perm)
}

// The ring is there also where nothing goes around the page cache.
func TestRingThroughThePageCache(t *testing.T) {
	m := durabletest.NewMem()
	for _, dir := range []string{"/t", "/t/a.trail"} {
		if err := m.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	j := &Journal{opts: Options{FS: cached{m}, Dir: "/t/a.trail", Ring: 4 * ringBlock}}
	f, err := j.makeRing()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openRing(cached{m}, j.ringPath()); err != nil {
		t.Fatal(err)
	}
}
