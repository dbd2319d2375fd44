package measure

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// counted is a recorder that writes a byte and allocates once per entry.
type counted struct {
	f    *os.File
	wait time.Duration
	keep []byte
}

func (c *counted) Record(int) error {
	c.keep = make([]byte, 1<<10)
	time.Sleep(c.wait)
	_, err := c.f.Write([]byte{'.'})
	return err
}

func (c *counted) Close() error { return c.f.Close() }

func contestant(name string, wait time.Duration) Contestant {
	return Contestant{Name: name, Open: func(dir string) (Recorder, error) {
		f, err := os.Create(filepath.Join(dir, "f"))
		return &counted{f: f, wait: wait}, err
	}}
}

func TestRunCountsWhatARecorderDoes(t *testing.T) {
	dir := t.TempDir()
	rows, err := Run(Comparison{
		Name: "test", Writers: 1, Baseline: "fast", Rounds: 3, Slice: time.Minute, MaxEntries: 20, WarmUp: 5,
		Contestants: []Contestant{contestant("fast", time.Millisecond), contestant("slow", 10*time.Millisecond)},
	}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Entries != 60 || r.Bytes != 1 || r.Allocs < 1 || r.Allocs > 8 {
			t.Errorf("%+v: want 60 entries of 1 byte and about 1 allocation", r)
		}
		if !(r.P50 <= r.P95 && r.P95 <= r.P99) {
			t.Errorf("%s: percentiles %g, %g, %g do not ascend", r.Name, r.P50, r.P95, r.P99)
		}
	}
	if slow := rows[1]; slow.P50 < 10_000 || slow.Ratio <= 1 || slow.Rate > 100 {
		t.Errorf("a recorder that waits 10 ms is shown as %+v", slow)
	}
	if left, _ := os.ReadDir(dir); len(left) != 6 { // three rounds of two, each in a place of its own
		t.Errorf("%d places, want 6", len(left))
	}
}

type failing struct{ after int }

func (f *failing) Record(n int) error {
	if n >= f.after {
		return errors.New("no more")
	}
	return nil
}
func (*failing) Close() error { return nil }

func TestRunFailsWhenAnEntryIsNotRecorded(t *testing.T) {
	for _, writers := range []int{1, 8} {
		c := Contestant{Name: "failing", Open: func(string) (Recorder, error) { return &failing{100}, nil }}
		_, err := Run(Comparison{Name: "test", Writers: writers, Baseline: "failing", Rounds: 1, Slice: time.Minute, Contestants: []Contestant{c}}, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), "no more") {
			t.Errorf("%d writers: error %v", writers, err)
		}
	}
}

func TestPercentileIsNearestRank(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1)*time.Microsecond)
	}
	for p, want := range map[int]float64{50: 50, 95: 95, 99: 99} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("p%d of 1 to 100 is %g", p, got)
		}
	}
	if got := percentile(hundred[:1], 99); got != 1 {
		t.Errorf("p99 of one value is %g", got)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := WriteTable(&b, []Row{
		{Comparison: "one", Name: "a", Baseline: "a", RatioOf: "p95", P50: 1.234, P95: 12.34, P99: 1234.5, Rate: 1234567, Ratio: 1},
		{Comparison: "two", Name: "µ", Baseline: "µ", RatioOf: "rate"},
	}); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"one; ratio of p95 to a\n", "  a   ", "1.23", "12.3", "1,235", "1,234,567", "two; ratio of rate to µ\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
