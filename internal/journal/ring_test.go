package journal

import (
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

// filledRing is a ring of four blocks after so many batches of a line.
func filledRing(t testing.TB, kind *ringKind, batches int) []byte {
	m := durabletest.NewMem()
	file, err := m.OpenFile("/ring", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(4 * ringBlock); err != nil {
		t.Fatal(err)
	}
	r, l := &ring{kind: kind, half: 2 * ringBlock}, &lane{file: file}
	for i := range batches {
		var b batch
		b.add([]byte("line 456\n"), nil)
		s := r.place(l, 3, int64(i*9), 9)
		if err := s.put(&b); err != nil {
			t.Fatal(err)
		}
	}
	data, err := durable.ReadFile(m, "/ring", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Of two batches that were on their way when the power failed the second alone may
// be in the ring, also where it began a half.
func TestParseRingEndsAtAGap(t *testing.T) {
	m := durabletest.NewMem()
	file, err := m.OpenFile("/ring", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r, l := &ring{kind: durableRing, half: 2 * ringBlock}, &lane{file: file}
	for i, arrives := range []bool{true, false, true} {
		var b batch
		b.add([]byte("a line\n"), nil)
		s := r.place(l, 0, int64(7*i), 7)
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
	j := &Journal{opts: Options{FS: cached{m}, Dir: "/t/a.trail"}}
	l, err := j.makeRing(durableRing, 4*ringBlock)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openLane(cached{m}, j.ringPath(), durableRing, 4*ringBlock); err != nil {
		t.Fatal(err)
	}
}

// A ring of mode Written has a frame where the one before it ends, not a block later,
// and comes round.
func TestParseRingOfModeWritten(t *testing.T) {
	const each = 2 * ringBlock / 64 // frames of a half: head and line are 53 bytes
	for _, n := range []int{1, each, each + 1, 2 * each, 3*each + 7} {
		frames := parseRing(filledRing(t, writtenRing, n))
		first := max(0, n-each-(n-1)%each-1) // a whole half, and as much of the other as it was begun anew
		if len(frames) != n-first {
			t.Fatalf("%d batches: %d frames, want %d", n, len(frames), n-first)
		}
		for i, f := range frames {
			if f.kind != writtenRing || f.seq != uint64(first+i+1) || f.offset != int64(9*(first+i)) || string(f.batch) != "line 456\n" {
				t.Fatalf("%d batches: frame %d is %+v", n, i, f)
			}
		}
	}
}
