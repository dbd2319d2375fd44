package spool

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

func item(i int) Item {
	return Item{Format: Format, ID: NewID(time.Now()), At: "2026-01-02T03:04:05.678Z", Event: json.RawMessage(`{}`), PID: i}
}

func TestIDsOfOneProcessKeepTheirOrder(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var ids []string
	for i := range 5000 {
		ids = append(ids, NewID(now.Add(time.Duration(i)*250*time.Nanosecond)))
	}
	if !slices.IsSorted(ids) {
		t.Error("they are out of order")
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 5000 {
		t.Error("two are the same")
	}
	if !validID.MatchString(ids[0]) || ids[0][14] != '7' {
		t.Errorf("%s is no UUIDv7", ids[0])
	}
}

func TestItemsComeOutInTheOrderOfPutting(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		if err := Put(durable.OS, dir, item(i+1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Microsecond)
	}
	n := 0
	for got, err := range All(durable.OS, dir) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; got.PID != n || got.Owner == "" || got.File == "" {
			t.Errorf("item %d: %+v", n, got)
		}
	}
	if n != 50 {
		t.Errorf("%d items", n)
	}
}

func TestTheSpoolIsBounded(t *testing.T) {
	dir := t.TempDir()
	big := item(1)
	big.Event = json.RawMessage(`"` + string(slices.Repeat([]byte{'x'}, MaxBytes/2)) + `"`)
	if err := Put(durable.OS, dir, big); err != nil {
		t.Fatal(err)
	}
	big.ID = NewID(time.Now())
	if err := Put(durable.OS, dir, big); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	if err := Put(durable.OS, dir, item(1)); err != nil {
		t.Errorf("a small one fits: %v", err)
	}
}

func TestEveryLossIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	const n = 200
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := Lose(durable.OS, dir); err != nil {
				t.Error(err)
			}
		})
	}
	var mu sync.Mutex
	total := int64(0)
	ids := map[string]bool{}
	take := func() {
		err := TakeLost(durable.OS, dir, func(id string, count int64) error {
			mu.Lock()
			defer mu.Unlock()
			total += count
			if ids[id] {
				t.Errorf("%s was handed over before", id)
			}
			ids[id] = true
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		wg.Go(take)
	}
	wg.Wait()
	take()
	if total != n {
		t.Errorf("%d counted, %d were lost", total, n)
	}
	// What could not be recorded is handed over again, as the same count.
	if err := Lose(durable.OS, dir); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("no")
	first := ""
	if err := TakeLost(durable.OS, dir, func(id string, _ int64) error { first = id; return failed }); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	if err := TakeLost(durable.OS, dir, func(id string, count int64) error {
		if id != first || count != 1 {
			t.Errorf("%d as another count", count)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
