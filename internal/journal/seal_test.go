package journal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

type noInspector struct{}

func (noInspector) Line(int64, []byte) error      { return nil }
func (noInspector) Done() (string, Bounds, error) { return "", Bounds{}, nil }

// A compressed segment passes when it holds the plain file's lines, and not
// when one of them differs, is missing or is too many.
func TestReadBackComparesEveryByte(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, segmentsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	j := &Journal{opts: Options{FS: durable.OS, Dir: dir}}
	plain := filepath.Join(dir, "plain")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(plain, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("{\"a\":1}\n{\"b\":22}\n\n{\"c\":333}\n")
	sealed, err := j.writeSealed(plain, filepath.Join(dir, segmentsDir, segmentName(7)+sealedSuffix), Segment{First: 7, Count: 4}, noInspector{})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.readBack(plain, sealed); err != nil {
		t.Error(err)
	}
	for _, other := range []string{
		"{\"a\":1}\n{\"b\":23}\n\n{\"c\":333}\n", "{\"a\":1}\n{\"b\":22}\n\n", "{\"a\":1}\n{\"b\":22}\n{\"c\":333}\n\n", "",
		"{\"a\":1}\n{\"b\":22}\n\n{\"c\":333} ",
	} {
		write(other)
		if err := j.readBack(plain, sealed); err == nil {
			t.Errorf("%q passes", other)
		}
	}
	write("{\"a\":1}\n{\"b\":22}\n\n{\"c\":333}\n{\"d\":4}\n")
	short := sealed
	short.Count++
	short.Bytes += 8
	if err := j.readBack(plain, short); err == nil {
		t.Error("a line that the compressed file lacks is not missed")
	}
}
