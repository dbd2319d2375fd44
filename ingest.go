package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Ingest is RecordBatch for events that another program has sent over OTLP, and
// returns once they are on disk, whatever the trail's durability. Their
// recorded_by says so (via is "otlp"), and who has sent them, as far as that is
// known: by, or "unknown".
//
// The fact is kept where a value can't be, as Capture does it. Every event needs
// an idempotency key; one that is sent again gives the first receipt. Errors are
// those of RecordBatch; it is ErrLocked where another process holds the trail.
func (t *Trail) Ingest(ctx context.Context, by string, events []Event) ([]Receipt, error) {
	if err := t.writable(ctx); err != nil {
		return nil, err
	}
	if !t.holds() {
		return nil, fmt.Errorf("ingest into %s: %w", t.path, ErrLocked)
	}
	if by == "" {
		by = "unknown"
	}
	who, ok := entry.AppendString(nil, by)
	if !ok {
		return nil, fmt.Errorf("%w: who has sent it is not valid UTF-8", ErrRefused)
	}
	recordedBy := fmt.Appendf(nil, `{"principal":%s,"via":"otlp"}`, who)
	receipts := make([]Receipt, len(events))
	failed := &BatchError{Errs: make([]error, len(events))}
	any := false
	fail := func(i int, err error) { failed.Errs[i], any = err, true }
	for i := range events {
		if events[i].IdempotencyKey == "" {
			return nil, fmt.Errorf("%w: event %d: idempotency_key: is required of what is ingested", ErrRefused, i)
		}
	}
	t.recordBounded(ctx, events, handed{recordedBy, true}, receipts, fail)
	if t.opts.Durability != Durable {
		if err := t.journal.Flush(ctx); err != nil {
			return nil, explainJournal(err)
		}
		for i := range receipts {
			receipts[i].Durable = failed.Errs[i] == nil
		}
	}
	if any {
		return receipts, failed
	}
	return receipts, nil
}

// omittedMAC tells whoever has the trail's key whether a value that was left out
// was a certain one, and nobody else.
func (k *keyring) omittedMAC(value []byte) []byte {
	mac := hmac.New(sha256.New, k.mac)
	mac.Write(value)
	return mac.Sum(nil)
}
