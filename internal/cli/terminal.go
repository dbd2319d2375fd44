package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// errStdout marks what went wrong in writing results.
var errStdout = errors.New("write results")

// terminal is stdout or stderr, and whether somebody looks at it. It is safe
// for concurrent use.
type terminal struct {
	width  int  // in columns; 0 when it is no terminal
	colour bool // a terminal, and NO_COLOR is not set (no-color.org)

	mu    sync.Mutex
	w     io.Writer
	drawn bool // a progress line stands there
}

func newTerminal(w io.Writer) *terminal {
	t := &terminal{w: w}
	if f, ok := w.(*os.File); ok {
		t.width = terminalWidth(f)
		t.colour = t.width > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return t
}

func (t *terminal) isTerminal() bool { return t.width > 0 }

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.w.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errStdout, err)
	}
	return n, err
}

// Select graphic rendition (ECMA-48 §8.3.117).
const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paint colours s where colour is wanted. s must be printable.
func (t *terminal) paint(style, s string) string {
	if !t.colour || style == "" || s == "" {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// clear removes the progress line.
func (t *terminal) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drawn {
		fmt.Fprint(t.w, "\r\x1b[K")
		t.drawn = false
	}
}

// progress shows how far a long work is, on a terminal only. The work reports
// as often as it likes, from any goroutine; call done at its end.
type progress struct {
	t    *terminal
	verb string

	mu    sync.Mutex
	begun time.Time
	shown time.Time

	stopped bool
}

// Nothing is drawn for what ends soon, and no more often than the eye follows.
const (
	progressAfter = 300 * time.Millisecond
	progressEvery = 100 * time.Millisecond
)

func newProgress(t *terminal, verb string) *progress {
	return &progress{t: t, verb: verb, begun: time.Now()}
}

// bytes reports bytes done, of total.
func (p *progress) bytes(done, total int64) {
	if !p.t.isTerminal() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.stopped || now.Sub(p.begun) < progressAfter || now.Sub(p.shown) < progressEvery {
		return
	}
	p.shown = now
	rate := int64(float64(done) / now.Sub(p.begun).Seconds())
	p.t.draw(progressLine(p.verb, done, total, rate, p.t.width))
}

// progressLine is the bar: a verb, as many cells as fit up to 30, numbers.
func progressLine(verb string, done, total, rate int64, width int) string {
	share := 1.0
	if total > 0 {
		share = min(1, max(0, float64(done)/float64(total)))
	}
	numbers := fmt.Sprintf("%3.0f%%  %s of %s, %s/s", 100*share, formatBytes(done), formatBytes(total), formatBytes(rate))
	cells := min(30, width-len(verb)-len(numbers)-6)
	if cells < 5 {
		return verb + " " + numbers
	}
	full := int(share * float64(cells))
	return verb + " [" + strings.Repeat("#", full) + strings.Repeat(".", cells-full) + "] " + numbers
}

// draw replaces the progress line.
func (t *terminal) draw(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprint(t.w, "\r", truncate(s, max(1, t.width-1)), "\x1b[K")
	t.drawn = true
}

func (p *progress) done() { p.t.clear() }

// stop ends the progress for good: results come on the same screen.
func (p *progress) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.t.clear()
}
