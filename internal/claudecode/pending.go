package claudecode

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Overdue is how long a tool call may go unanswered before it counts as never
// answered. The agent itself gives up on a command after ten minutes at most.
const Overdue = time.Hour

// Pending is a directory of tool calls that were begun and not answered yet:
// one file for each, named by hashes of its session and its id. A file is not
// synced: after a power failure the agent has lost the call too.
//
// Without a directory nothing can be kept, and nothing is found.
type Pending struct {
	Dir string
	// Parse reads an event's text again; nil is for text that nothing was done to
	// but what a policy does.
	Parse func(text, notes []byte) (entry.Event, error)
}

// Begun is a tool call that was begun.
type Begun struct {
	At    time.Time   // when the hook that began it ran
	Event entry.Event // what it says, as the policy leaves it

	key  string
	file string
}

const (
	pendingSuffix = ".pending"
	pendingFormat = 2
)

// pendingHead is the first line of a file; the event's text follows.
type pendingHead struct {
	Format  int             `json:"format"`
	At      time.Time       `json:"at"`
	Omitted []string        `json:"omitted,omitempty"` // the event's members that were left out
	Policy  json.RawMessage `json:"policy,omitempty"`  // what a policy did to the event
}

// Put keeps what h begins, as the policy leaves it: text gives that for its event.
func (p Pending) Put(h *Hook, at time.Time, text func(*entry.Event) (text, notes []byte, err error)) error {
	if p.Dir == "" {
		return errors.New("there is no place to keep it")
	}
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	ev := h.Event(at, nil)
	if err := entry.KeepFact(&ev, &entry.Stamp{TraceID: "none", EventID: "none", RecordedAt: at}, nil); err != nil {
		return err
	}
	body, notes, err := text(&ev)
	if err != nil {
		return err
	}
	head, err := json.Marshal(pendingHead{pendingFormat, at.Round(0), ev.Omitted(), notes})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(p.Dir, "*.tmp") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(append(head, '\n'), body...))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), p.file(h))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// Find gives the call that h answers, nil where none is known. It waits on
// until Done.
func (p Pending) Find(h *Hook) *Begun {
	b, err := p.read(p.file(h))
	if err != nil {
		return nil
	}
	return b
}

// Done forgets a call. It is for when its entry is safe: a call that ends
// between the two is told as unknown later, and not lost.
func (b *Begun) Done() error { return os.Remove(b.file) }

// Unanswered gives the calls of a session, "" for none, and all that are
// overdue at now.
func (p Pending) Unanswered(now time.Time, session string) iter.Seq[*Begun] {
	return func(yield func(*Begun) bool) {
		files, err := os.ReadDir(p.Dir)
		if err != nil {
			return
		}
		mine := ""
		if session != "" {
			mine = sessionHash(session)
		}
		for _, f := range files {
			fi, err := f.Info()
			if err != nil {
				continue
			}
			old := now.Sub(fi.ModTime()) > Overdue
			name := filepath.Join(p.Dir, f.Name())
			if strings.HasSuffix(name, ".tmp") && old {
				_ = os.Remove(name) // left by a crash
			}
			if !strings.HasSuffix(name, pendingSuffix) || !old && (mine == "" || !strings.HasPrefix(f.Name(), mine)) {
				continue
			}
			b, err := p.read(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				// Cut short by a crash: that there was a call is all that is known.
				b = &Begun{At: fi.ModTime(), Event: (&Hook{Name: preToolUse}).Event(fi.ModTime(), nil), file: name, key: strings.TrimSuffix(f.Name(), pendingSuffix)}
			}
			if !yield(b) {
				return
			}
		}
	}
}

// Unknown is a call that was never answered. Its idempotency key is the call's,
// so that two processes that find it record it once.
func (b *Begun) Unknown() entry.Event {
	ev := b.Event
	ev.Success, ev.Outcome = new(false), "unknown"
	ev.IdempotencyKey = "claude-code:unknown:" + b.key
	ev.TraceID = cmp.Or(ev.TraceID, b.key)
	return ev
}

// BeginOnly is a call whose beginning can't be kept until it is answered.
func BeginOnly(h *Hook, now time.Time) entry.Event {
	ev := h.Event(now, nil)
	ev.Success, ev.Outcome = new(false), "unknown"
	return ev
}

// file names a call without saying anything about it. Where the agent gave it
// no id it is known by its tool and input.
func (p Pending) file(h *Hook) string {
	call := []string{"id", h.ToolUseID}
	if h.ToolUseID == "" {
		call = []string{"call", h.string("tool_name"), string(h.get("tool_input"))}
	}
	return filepath.Join(p.Dir, sessionHash(h.SessionID)+hash(append(call, h.SessionID)...)[:32]+pendingSuffix)
}

func sessionHash(id string) string { return hash("session", id)[:16] + "-" }

// hash is over texts and their lengths.
func hash(texts ...string) string {
	h := sha256.New()
	for _, s := range texts {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func (p Pending) read(name string) (*Begun, error) {
	if p.Dir == "" {
		return nil, fs.ErrNotExist
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	b, err := p.parse(data)
	if err != nil {
		return nil, err
	}
	b.file, b.key = name, strings.TrimSuffix(filepath.Base(name), pendingSuffix)
	return b, nil
}

// parsePending reads a file.
func (p Pending) parse(data []byte) (*Begun, error) {
	line, text, ok := bytes.Cut(data, []byte("\n"))
	var head pendingHead
	if !ok || json.Unmarshal(line, &head) != nil || head.Format != pendingFormat {
		return nil, errors.New("not a call that waits")
	}
	read := p.Parse
	if read == nil {
		read = parseEvent
	}
	ev, err := read(text, head.Policy)
	if err != nil {
		return nil, errors.New("not a call that waits")
	}
	ev.NoteOmitted(head.Omitted...)
	return &Begun{At: head.At, Event: ev}, nil
}

func parseEvent(text, notes []byte) (entry.Event, error) {
	ev, err := entry.ParseEvent(text)
	ev.NotePolicy(notes)
	return ev, err
}
