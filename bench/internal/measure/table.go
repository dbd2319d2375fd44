package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unicode/utf8"
)

// WriteTable writes rows as one table, under the name of each comparison.
func WriteTable(w io.Writer, rows []Row) error {
	cells := [][]string{{"", "p50 µs", "p95 µs", "p99 µs", "entries/s", "bytes", "allocs", "CPU µs", "ratio", "(low to high)"}}
	for i, r := range rows {
		if i == 0 || rows[i-1].Comparison != r.Comparison {
			cells = append(cells, nil, []string{fmt.Sprintf("%s; ratio of %s to %s", r.Comparison, r.RatioOf, r.Baseline)})
		}
		cells = append(cells, []string{
			"  " + r.Name, Number(r.P50), Number(r.P95), Number(r.P99), Thousands(r.Rate),
			fmt.Sprintf("%.0f", r.Bytes), fmt.Sprintf("%.1f", r.Allocs), Number(r.CPU),
			fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("(%.2f to %.2f)", r.RatioLow, r.RatioHigh),
		})
	}
	return WriteCells(w, cells)
}

// WriteCells writes cells in columns: the first to the left, the others to the
// right. A line of one cell is a heading and makes no column wider.
func WriteCells(w io.Writer, cells [][]string) error {
	var widths []int
	for _, line := range cells {
		for i, c := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if len(line) > 1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(c))
			}
		}
	}
	var b strings.Builder
	for _, line := range cells {
		for i, c := range line {
			pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(c)))
			switch {
			case i > 0:
				b.WriteString("  " + pad + c)
			case len(line) > 1:
				b.WriteString(c + pad)
			default:
				b.WriteString(c)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Number gives three significant digits or more.
func Number(x float64) string {
	switch {
	case x >= 100:
		return Thousands(x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// Thousands gives a whole number with separators.
func Thousands(x float64) string {
	s := strconv.FormatInt(int64(x+0.5), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Machine says where a run was made, without naming the machine.
type Machine struct {
	Go   string `json:"go"`
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CPU  string `json:"cpu,omitempty"`
	CPUs int    `json:"cpus"`
}

// ThisMachine is the one we run on.
func ThisMachine() Machine {
	m := Machine{Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0)}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	return m
}

func (m Machine) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s/%s, %d CPUs %s", m.Go, m.OS, m.Arch, m.CPUs, m.CPU))
}

// WriteJSON writes v to a new file, indented.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}
