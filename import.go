package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Import is RecordBatch for events of the past that another log had. Their
// recorded_by says so (via is "import"), and reports count them apart: the
// trail vouches for them from here on, not for what happened before. Every
// event needs an idempotency key that is its own wherever it is read from
// again; one whose key is known gives the first receipt once more. It is
// ErrLocked where another process holds the trail: what comes through its
// socket is recorded as that.
func (t *Trail) Import(ctx context.Context, events []Event) ([]Receipt, error) {
	if err := t.writable(ctx); err != nil {
		return nil, err
	}
	if !t.holds() {
		return nil, fmt.Errorf("import into %s: %w", t.path, ErrLocked)
	}
	by := fmt.Appendf(nil, `{"principal":%q,"pid":%d,"via":"import"}`, principal(), os.Getpid())
	receipts := make([]Receipt, len(events))
	failed := &BatchError{Errs: make([]error, len(events))}
	any := false
	fail := func(i int, err error) { failed.Errs[i], any = err, true }
	from := 0
	record := func(to int) {
		t.recordBounded(ctx, events[from:to], handed{text: by}, receipts[from:to], func(i int, err error) { fail(from+i, err) })
		from = to
	}
	for i := range events {
		if events[i].IdempotencyKey == "" {
			record(i)
			fail(i, fmt.Errorf("%w: idempotency_key: is required of what is imported", ErrRefused))
			from = i + 1
		}
	}
	record(len(events))
	if any {
		return receipts, failed
	}
	return receipts, nil
}

// ImportedKeys gives the idempotency keys that begin with prefix, of all
// entries that Import recorded: also of those that are too old for the trail
// to know their keys without reading its lines. It is no reading of entries
// and is not recorded.
func (t *Trail) ImportedKeys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		quoted, ok := entry.AppendString(nil, prefix)
		if !ok {
			yield("", errors.New("imported keys: the prefix is not valid UTF-8"))
			return
		}
		needle := append([]byte(`"idempotency_key":`), quoted[:len(quoted)-1]...)
		view, err := t.view()
		if err != nil {
			yield("", err)
			return
		}
		defer view.Close()
		var adopted Adopted
		enough := errors.New("enough")
		for _, part := range view.Parts() {
			_, err := view.Part(ctx, part, func(index int64, line []byte) error {
				adopted.See(index, line)
				if adopted.Has(index) {
					return nil
				}
				line, err := t.opened(line)
				if err != nil || !bytes.Contains(line, needle) {
					return err
				}
				e, err := entry.Parse(line)
				if err != nil || !e.IsImported() || !strings.HasPrefix(e.IdempotencyKey, prefix) {
					return nil
				}
				if !yield(strings.Clone(e.IdempotencyKey), nil) {
					return enough
				}
				return nil
			})
			if errors.Is(err, enough) {
				return
			}
			if err != nil {
				yield("", fmt.Errorf("imported keys: segment %d: %w", part.First, err))
				return
			}
		}
	}
}
