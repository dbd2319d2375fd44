package cli

import (
	"io"
	"strings"
	"unicode"

	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// column is one column of a table.
type column struct {
	title string
	right bool // numbers
	least int  // on a narrow terminal it is cut to no less; 0: never cut
}

// cell is text made printable, and how it is painted.
type cell struct {
	text  string
	style string
}

func text(s string) cell { return cell{text: report.Printable(s)} }

// table writes rows in aligned columns. Rows come out in blocks, so that its
// memory is bounded; the columns of a block are never narrower than before.
type table struct {
	out     *terminal
	w       io.Writer
	columns []column
	widths  []int
	rows    [][]cell
	begun   bool
}

// tableBlock is how many rows are aligned together: many more than a screen.
const tableBlock = 1000

func newTable(out *terminal, w io.Writer, columns ...column) *table {
	t := &table{out: out, w: w, columns: columns, widths: make([]int, len(columns))}
	for i, c := range columns {
		t.widths[i] = displayWidth(c.title)
	}
	return t
}

// atLeast makes the first columns no narrower than widths.
func (t *table) atLeast(widths []int) {
	for i, w := range widths {
		t.widths[i] = max(t.widths[i], w)
	}
}

func (t *table) row(cells ...cell) error {
	t.rows = append(t.rows, cells)
	if len(t.rows) < tableBlock {
		return nil
	}
	return t.flush()
}

// flush writes the rows that wait, and the titles if nothing has been written.
func (t *table) flush() error {
	for _, row := range t.rows {
		for i, c := range row {
			t.widths[i] = max(t.widths[i], displayWidth(c.text))
		}
	}
	widths := t.fit()
	var b strings.Builder
	if !t.begun {
		t.begun = true
		titles := make([]cell, len(t.columns))
		for i, c := range t.columns {
			titles[i] = cell{c.title, bold}
		}
		t.format(&b, titles, widths)
	}
	for _, row := range t.rows {
		t.format(&b, row, widths)
	}
	t.rows = t.rows[:0]
	_, err := io.WriteString(t.w, b.String())
	return err
}

const columnGap = 2

// fit narrows the columns that may be cut until the table fits the terminal,
// the widest first. Without a terminal nothing is cut.
func (t *table) fit() []int {
	widths := append([]int(nil), t.widths...)
	if !t.out.isTerminal() {
		return widths
	}
	over := columnGap*(len(widths)-1) - t.out.width
	for _, w := range widths {
		over += w
	}
	for ; over > 0; over-- {
		widest := -1
		for i, c := range t.columns {
			if c.least > 0 && widths[i] > c.least && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

func (t *table) format(b *strings.Builder, row []cell, widths []int) {
	for len(row) > 0 && row[len(row)-1].text == "" {
		row = row[:len(row)-1] // no blanks at a line's end
	}
	for i, c := range row {
		s := truncate(c.text, widths[i])
		pad := strings.Repeat(" ", widths[i]-displayWidth(s))
		painted := t.out.paint(c.style, s)
		switch {
		case t.columns[i].right:
			b.WriteString(pad + painted)
		case i == len(row)-1:
			b.WriteString(painted)
		default:
			b.WriteString(painted + pad)
		}
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", columnGap))
		}
	}
	b.WriteByte('\n')
}

// truncate cuts printable text to a width, and shows that it did.
func truncate(s string, width int) string {
	if displayWidth(s) <= width {
		return s
	}
	used := 0
	for i, r := range s {
		if used += runeWidth(r); used > width-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// displayWidth is how many columns printable text takes.
func displayWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth follows UAX #11 where it matters: wide and fullwidth characters
// take two columns, combining marks none.
func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.In(r, wide):
		return 2
	}
	return 1
}

// wide are the blocks whose East Asian Width is W or F (UAX #11), taken whole.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0x33ff, 1}, {0x3400, 0x4dbf, 1}, {0x4e00, 0x9fff, 1},
		{0xa000, 0xa4cf, 1}, {0xa960, 0xa97f, 1}, {0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1},
		{0xff00, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{
		{0x17000, 0x18aff, 1}, {0x1b000, 0x1b2ff, 1}, {0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1},
		{0x1f900, 0x1f9ff, 1}, {0x1fa70, 0x1faff, 1}, {0x20000, 0x3fffd, 1},
	},
}

// facts writes names and values, one a line, the values aligned.
func facts(w io.Writer, pairs ...[2]string) error {
	width := 0
	for _, p := range pairs {
		width = max(width, displayWidth(p[0]))
	}
	var b strings.Builder
	for _, p := range pairs {
		if p[1] != "" {
			b.WriteString(p[0] + ":" + strings.Repeat(" ", width-displayWidth(p[0])+1) + report.Printable(p[1]) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
