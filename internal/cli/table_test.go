package cli

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/export"
)

func render(t *testing.T, width int, colour bool, rows ...[]cell) string {
	t.Helper()
	var b bytes.Buffer
	tab := newTable(&terminal{w: &b, width: width, colour: colour}, &b,
		column{title: "N", right: true}, column{title: "NAME", least: 4}, column{title: "LAST", least: 4})
	for _, r := range rows {
		if err := tab.row(r...); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTableAligns(t *testing.T) {
	got := render(t, 0, false,
		[]cell{text("1"), text("short"), text("x")},
		[]cell{text("10"), text("東京 and é"), text("")},
		[]cell{text("7"), text("line\nbreak\x1b[1m"), text("y")})
	want := "" +
		" N  NAME                LAST\n" +
		" 1  short               x\n" +
		"10  東京 and é\n" +
		" 7  line\\nbreak\\x1b[1m  y\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTableFitsATerminalAndIsWholeInAPipe(t *testing.T) {
	long := strings.Repeat("abcdefghij", 10)
	row := []cell{text("1"), text(long), text(long[:30])}
	for width := 20; width < 150; width++ {
		for line := range strings.Lines(render(t, width, false, row)) {
			if n := displayWidth(strings.TrimSuffix(line, "\n")); n > width {
				t.Fatalf("%d columns on a terminal of %d: %q", n, width, line)
			}
		}
	}
	if got := render(t, 40, false, row); !strings.Contains(got, "…") {
		t.Errorf("a cut is not shown: %q", got)
	}
	if got := render(t, 0, false, row); !strings.Contains(got, long) {
		t.Errorf("cut in a pipe: %q", got)
	}
}

func TestTableHasColourOnlyWhereWanted(t *testing.T) {
	row := []cell{text("1"), {"no", red}, text("x")}
	if got := render(t, 80, false, row); strings.Contains(got, "\x1b") {
		t.Errorf("colour: %q", got)
	}
	got := render(t, 80, true, row)
	if !strings.Contains(got, "\x1b[31mno\x1b[0m  ") || !strings.Contains(got, "\x1b[1mNAME\x1b[0m") {
		t.Errorf("no colour: %q", got)
	}
}

func TestBigTablesComeInBlocks(t *testing.T) {
	var b bytes.Buffer
	tab := newTable(&terminal{w: &b}, &b, column{title: "N"})
	for range tableBlock {
		if err := tab.row(text("x")); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() == 0 || len(tab.rows) != 0 {
		t.Errorf("%d bytes written, %d rows held after a block", b.Len(), len(tab.rows))
	}
	if err := tab.flush(); err != nil || strings.Count(b.String(), "N") != 1 || strings.Count(b.String(), "\n") != tableBlock+1 {
		t.Errorf("titles %d times, %d lines, %v", strings.Count(b.String(), "N"), strings.Count(b.String(), "\n"), err)
	}
}

func TestTruncate(t *testing.T) {
	for _, tc := range []struct {
		in    string
		width int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"東京都", 6, "東京都"}, {"東京都", 5, "東京…"}, {"東京都", 4, "東…"},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"}, {"abc", 1, "…"}, {"", 0, ""},
	} {
		if got := truncate(tc.in, tc.width); got != tc.want {
			t.Errorf("truncate(%q, %d) = %q, want %q", tc.in, tc.width, got, tc.want)
		}
	}
}

func TestCSVCellsAreNoFormulas(t *testing.T) {
	for in, want := range map[string]string{"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx", "a=b": "a=b", "": "", "{}": "{}", "12.5": "12.5"} {
		if got := export.CSVCell(in); got != want {
			t.Errorf("CSVCell(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestProgressLineFits(t *testing.T) {
	for width := 1; width < 120; width++ {
		for _, total := range []int64{0, 1, 1000, 5 << 30} {
			for done := int64(0); done <= total; done += max(1, total/3) {
				line := progressLine("verify", done, total, 1<<29, width)
				if bar := strings.Contains(line, "["); bar && displayWidth(line) >= width {
					t.Fatalf("%d columns of %d: %q", displayWidth(line), width, line)
				}
			}
		}
	}
	if got := progressLine("verify", 512<<20, 1<<30, 256<<20, 80); got != "verify [###############...............]  50%  512 MiB of 1 GiB, 256 MiB/s" {
		t.Errorf("%q", got)
	}
}

// TestProgressIsForTerminalsOnly: nothing is drawn into a file, and what was
// drawn is gone before a message.
func TestProgressIsForTerminalsOnly(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&terminal{w: &b}, "verify")
	p.begun = p.begun.Add(-progressAfter)
	p.bytes(1, 2)
	p.done()
	if b.Len() != 0 {
		t.Errorf("drawn into a file: %q", b.String())
	}
	p = newProgress(&terminal{w: &b, width: 80}, "verify")
	p.bytes(1, 2)
	if b.Len() != 0 {
		t.Errorf("drawn at once: %q", b.String())
	}
	p.begun = p.begun.Add(-progressAfter)
	p.bytes(1, 2)
	p.bytes(2, 2)
	p.done()
	if got := b.String(); strings.Count(got, "verify [") != 1 || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("%q", got)
	}
}

// TestLongReadingsShowProgress: query, trace and report draw on a terminal's
// stderr once they take long, and nowhere else.
func TestLongReadingsShowProgress(t *testing.T) {
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	log := filepath.Join(t.TempDir(), "a.jsonl")
	big := strings.Repeat(strings.Replace(oneEvent, `"action":"x"`, `"action":"`+strings.Repeat("x", 1<<20)+`"`, 1), 9)
	var errs bytes.Buffer
	if code := Main(t.Context(), []string{"record", "--log", log}, strings.NewReader(big), io.Discard, &errs); code != exitDone {
		t.Fatal(&errs)
	}
	for _, verb := range []string{"query", "report"} {
		for _, c := range []struct {
			width int
			begun time.Duration // from now; later, as if it took no time at all
			drawn bool
		}{{80, -time.Hour, true}, {0, -time.Hour, false}, {80, time.Hour, false}} {
			var b bytes.Buffer
			a := &app{stdout: newTerminal(io.Discard), stderr: &terminal{w: &b, width: c.width}}
			a.settings.log = log
			trail, bar, err := a.openScan(&cobra.Command{Use: verb}, verb)
			if err != nil {
				t.Fatal(err)
			}
			bar.begun = bar.begun.Add(c.begun)
			if verb == "report" {
				_, err = trail.ComplianceReport(t.Context())
			} else {
				for _, failed := range trail.Query(t.Context(), audit.Query{Agent: "nobody"}) {
					err = errors.Join(err, failed)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			trail.Close()
			bar.done()
			if drawn := strings.Contains(b.String(), verb+" ["); drawn != c.drawn {
				t.Errorf("%s %+v: %q", verb, c, b.String())
			}
			if c.drawn && !strings.HasSuffix(b.String(), "\r\x1b[K") {
				t.Errorf("%s: the line stays: %q", verb, b.String())
			}
		}
	}
}
