package cli

import (
	"errors"
	"strings"
	"time"
)

// parseTime reads a time of a filter: RFC 3339; a date, which is that day in
// UTC, its first instant or, for the end of a range, its last; or how long
// back from now: 90m, 24h, 7d, 2w, 1d12h.
func parseTime(s string, now time.Time, end bool) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if end {
			t = t.AddDate(0, 0, 1).Add(-time.Nanosecond)
		}
		return t, nil
	}
	if back, ok := parseBack(s); ok {
		return now.Add(-back).UTC(), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04"} {
		if _, err := time.Parse(layout, s); err == nil {
			return time.Time{}, errors.New("has no zone; add Z for UTC, or an offset such as +02:00")
		}
	}
	return time.Time{}, errors.New("must be a time such as 2025-10-26T10:53:45Z, a date such as 2025-10-26, or how long ago, such as 24h or 7d")
}

// longestBack bounds a length of time to what a time.Duration holds.
const longestBack = 100 * 365 * 24 * time.Hour

// parseBack reads a length of time: what time.ParseDuration knows, after weeks
// and days.
func parseBack(s string) (time.Duration, bool) {
	if s == "" || strings.ContainsAny(s, "+-") {
		return 0, false
	}
	var total time.Duration
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, rest, ok := strings.Cut(s, unit.name)
		if !ok {
			continue
		}
		n, ok := wholeNumber(number)
		if !ok || time.Duration(n) > longestBack/unit.length {
			return 0, false
		}
		total += time.Duration(n) * unit.length
		s = rest
	}
	if s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, false
		}
		total += d
	}
	return total, total >= 0 && total <= longestBack
}

func wholeNumber(s string) (n int, ok bool) {
	if s == "" || len(s) > 6 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}
