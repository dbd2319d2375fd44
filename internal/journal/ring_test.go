package journal

import (
	"os"
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
