package cli

import (
	"strings"
	"testing"
	"time"
)

var now = time.Date(2025, 10, 26, 12, 0, 0, 0, time.UTC)

func TestTimesOfAFilter(t *testing.T) {
	for _, tc := range []struct {
		in   string
		end  bool
		want string // RFC 3339, or the beginning of the error
	}{
		{"2025-10-26T10:53:45.123Z", false, "2025-10-26T10:53:45.123Z"},
		{"2025-10-26T10:53:45.123456789Z", true, "2025-10-26T10:53:45.123456789Z"},
		{"2025-10-26T10:53:45+02:00", false, "2025-10-26T08:53:45Z"},
		{"2025-10-26", false, "2025-10-26T00:00:00Z"},
		{"2025-10-26", true, "2025-10-26T23:59:59.999999999Z"},
		{"2024-02-29", true, "2024-02-29T23:59:59.999999999Z"},
		{"24h", false, "2025-10-25T12:00:00Z"},
		{"24h", true, "2025-10-25T12:00:00Z"},
		{"7d", false, "2025-10-19T12:00:00Z"},
		{"2w", false, "2025-10-12T12:00:00Z"},
		{"1w1d12h30m", false, "2025-10-17T23:30:00Z"},
		{"1.5h", false, "2025-10-26T10:30:00Z"},
		{"0s", false, "2025-10-26T12:00:00Z"},
		{"2025-10-26T10:53:45", false, "has no zone"},
		{"2025-10-26 10:53:45", false, "has no zone"},
		{"2025-02-29", false, "must be a time"},
		{"-24h", false, "must be a time"},
		{"+24h", false, "must be a time"},
		{"7d-1h", false, "must be a time"},
		{"d", false, "must be a time"},
		{"1d1w", false, "must be a time"},
		{"999999w", false, "must be a time"},
		{"36501d", false, "must be a time"},
		{"yesterday", false, "must be a time"},
		{"1761475425", false, "must be a time"},
		{"", false, "must be a time"},
	} {
		got, err := parseTime(tc.in, now, tc.end)
		switch {
		case err != nil && !strings.HasPrefix(err.Error(), tc.want):
			t.Errorf("parseTime(%q): %v, want %s", tc.in, err, tc.want)
		case err == nil && got.Format(time.RFC3339Nano) != tc.want:
			t.Errorf("parseTime(%q, end %v) = %s, want %s", tc.in, tc.end, got.Format(time.RFC3339Nano), tc.want)
		}
	}
}

// FuzzTime: what is accepted is UTC, a length of time never lies ahead, and an
// instant that is printed is read as itself.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2025-10-26", "24h", "1w2d3h", "2025-10-26T10:53:45.123+02:00", "9999999d", "-1h", "0000-01-01"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, end bool) {
		got, err := parseTime(s, now, end)
		if err != nil {
			return
		}
		if got.Location() != time.UTC {
			t.Fatalf("%q: not in UTC", s)
		}
		if _, ok := parseBack(s); ok && got.After(now) {
			t.Fatalf("%q: %s lies ahead", s, got)
		}
		if y := got.Year(); y < 0 || y > 9999 {
			return // RFC 3339 has no spelling for it
		}
		again, err := parseTime(got.Format(time.RFC3339Nano), now, !end)
		if err != nil || !again.Equal(got) {
			t.Fatalf("%q: %s again is %s, %v", s, got, again, err)
		}
	})
}
