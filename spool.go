package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/spool"
)

const (
	// drainInterval is how long what others put into the spool waits while the
	// trail is held.
	drainInterval = time.Second
	// drainAtOpen bounds what an opening for a moment spends on a long spool:
	// an agent waits for it. The rest is left to the next opening.
	drainAtOpen = 250 * time.Millisecond
)

// spooledTypes are the trail's own entries that may come out of the spool:
// whoever can write there can't make lifecycle entries.
var spooledTypes = map[string]bool{
	"AUDIT_QUERY": true, "AUDIT_REPORT": true, "AUDIT_PROOF": true, "AUDIT_EXPORT": true, "AUDIT_VERIFY": true,
}

// spoolDirs are where items wait for a trail: beside it, and where that can't
// be written, below the user's own state directory.
func spoolDirs(dir, log, state string) []string {
	dirs := []string{filepath.Join(dir, "spool")}
	if state != "" {
		dirs = append(dirs, pin.Below(state, "spool", log))
	}
	return dirs
}

// others gives the user to whom a trail belongs, if that is another one than this
// process's. What this one puts beside such a trail its owner could not read, and
// a directory that root makes there would even keep the owner out.
func others(fsys durable.FS, dir string) (owner int, yes bool) {
	owner, err := durable.OwnerOf(fsys, dir)
	return owner, err == nil && owner >= 0 && owner != os.Geteuid()
}

// drainer takes the spool in.
type drainer struct {
	mu   sync.Mutex      // held while it is taken in
	told map[string]bool // files that were named as broken

	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

// start takes in what comes into the spool while the trail is held.
func (d *drainer) start(t *Trail) {
	d.stop = make(chan struct{})
	d.wg.Go(func() {
		tick := time.NewTicker(drainInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-d.stop:
				return
			}
			err := t.drainSpool(func() bool {
				select {
				case <-d.stop:
					return true
				default:
					return false
				}
			})
			if err != nil && t.journal.Err() == nil {
				t.warn(err) // a full disk, say: the items wait on
			}
		}
	})
}

// end waits until nothing is taken in any more.
func (d *drainer) end() {
	if d.stop != nil {
		d.once.Do(func() { close(d.stop) })
		d.wg.Wait()
	}
}

// drainSpool records what waits in the spool, oldest first and each item once:
// it has an idempotency key, and its file goes after its entry is durable. It
// ends early when enough says so.
func (t *Trail) drainSpool(enough func() bool) error {
	t.drainer.mu.Lock()
	defer t.drainer.mu.Unlock()
	for _, dir := range spoolDirs(t.dir, t.path, t.stateDir()) {
		for item, err := range spool.All(t.opts.fs, dir) {
			if enough() {
				return nil
			}
			if err == nil {
				err = t.takeIn(item)
			}
			switch {
			case err == nil:
			case errors.Is(err, ErrFull), errors.Is(err, ErrStopped), errors.Is(err, ErrClosed), errors.Is(err, errTakeIn):
				return err
			default:
				t.drainer.tell(t, cmp.Or(item.File, dir), err)
			}
		}
		var trouble error // of the trail
		err := spool.TakeLost(t.opts.fs, dir, func(id string, count int64) error {
			trouble = t.takeInLost(id, count)
			return trouble
		})
		switch {
		case trouble != nil:
			return fmt.Errorf("spool: %w", trouble)
		case err != nil:
			t.drainer.tell(t, filepath.Join(dir, "lost"), fmt.Errorf("spool: %w", err))
		}
	}
	return nil
}

// tell names a file that can't be taken in, once: it stays where it is, keeps
// nobody from recording, and another opening names it again.
func (d *drainer) tell(t *Trail, file string, err error) {
	if d.told[file] {
		return
	}
	t.warn(err)
	if d.told == nil {
		d.told = map[string]bool{}
	}
	d.told[file] = true
}

// errTakeIn is a trouble of the trail, not of the item.
var errTakeIn = errors.New("take in the spool")

// takeIn records an item and removes its file.
func (t *Trail) takeIn(item spool.Item) error {
	by := map[string]any{"principal": item.Owner, "via": "spool"}
	if item.PID > 0 {
		by["pid"] = item.PID
	}
	recordedBy, err := Of(by).AppendJSON(nil)
	if err != nil {
		return err
	}
	if item.Event != nil {
		err = t.takeInEvent(item, recordedBy)
	} else {
		err = t.takeInReading(item, recordedBy)
	}
	if err != nil {
		return err
	}
	// A queue may not have written it yet, and on a full disk it waits: the
	// item does too, then.
	ctx, cancel := context.WithTimeout(context.Background(), drainInterval)
	defer cancel()
	if err := t.journal.Flush(ctx); err != nil {
		return fmt.Errorf("%w: %w", errTakeIn, explainJournal(err))
	}
	if err := t.opts.fs.Remove(item.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errTakeIn, err)
	}
	return nil
}

// takeInEvent records an event that was captured. One that is refused, or
// whose key is another event's, is told by an entry of its own, and has come to
// its end.
func (t *Trail) takeInEvent(item spool.Item, by []byte) error {
	ev, err := t.ParsePending(item.Event, item.Policy)
	if errors.Is(err, ErrNoKey) || errors.Is(err, ErrSealed) {
		return err
	}
	if err != nil {
		t.refused.add(err)
		return nil
	}
	ev.NoteOmitted(item.Omitted...)
	if ev.IdempotencyKey == "" {
		ev.IdempotencyKey = "spool:" + item.ID
	}
	t.recordBatch(context.Background(), []Event{ev}, handed{text: by, keep: true}, make([]Receipt, 1), func(_ int, e error) { err = e })
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

func (t *Trail) takeInReading(item spool.Item, by []byte) error {
	name := "spool/" + filepath.Base(item.File)
	if !spooledTypes[item.EventType] {
		return fmt.Errorf("%s: is not an entry that waits there", name)
	}
	at, _, err := entry.ParseTime(item.At)
	if err == nil && seal.IsLine(item.Inputs) {
		item.Inputs, err = t.opened(item.Inputs)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	err = t.recordOwnOnce(ownEntry{
		eventType: item.EventType, action: item.Action, inputs: Raw(item.Inputs), outputs: Raw(item.Outputs),
		metadata: map[string]any{"reader": Raw(item.Metadata)}, key: "spool:" + item.ID, by: by, at: at,
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// takeInLost records that events did not fit into the spool.
func (t *Trail) takeInLost(id string, count int64) error {
	return t.recordOwnOnce(ownEntry{
		eventType: "AUDIT_LOSS", action: "loss", failed: true, key: "spool:" + id,
		outputs: map[string]any{"count": count, "reason": "spool_full"},
	})
}

// recordOwnOnce records one of the trail's own entries unless its key is
// known.
func (t *Trail) recordOwnOnce(o ownEntry) error {
	if _, known, err := t.idem.Lookup(t.idem.Hash(o.key)); err != nil || known {
		return err
	}
	r, err := t.recordOwnReceipt(context.Background(), o)
	if err != nil {
		return err
	}
	return t.idem.Add(t.idem.Hash(o.key), r.Index, t.clock.now())
}
