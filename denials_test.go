package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// refusals are the trail's entries about refused calls: how many there are of each
// principal, and how many refusals they tell of.
func refusalsOf(t *testing.T, trail *Trail) (entries, told map[string]int64) {
	t.Helper()
	entries, told = map[string]int64{}, map[string]int64{}
	for e, err := range trail.scan(context.Background(), Query{Trails: true, Action: "denied"}) {
		if err != nil {
			t.Fatal(err)
		}
		who, n := e.Inputs.Text("principal"), int64(1)
		var o struct{ Count int64 }
		if e.Outputs.Decode(&o) == nil && o.Count > 0 {
			n = o.Count
			var in struct{ Calls []struct{ Count int64 } }
			if err := e.Inputs.Decode(&in); err != nil {
				t.Fatal(err)
			}
			sum := int64(0)
			for _, c := range in.Calls {
				sum += c.Count
			}
			if sum != n {
				t.Errorf("%d refusals, and %v", n, in.Calls)
			}
		}
		entries[who]++
		told[who] += n
	}
	return entries, told
}

// A flood of refused calls is an entry at once, and one for each period that it lasts;
// none is lost, not those of many principals at once, nor what was counted last.
func TestRefusedCallsAreCounted(t *testing.T) {
	path, o := profileTrail(t, "plain", Options{NoSocket: true})
	now := time.Now()
	var mu sync.Mutex
	o.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	o.Access = &Access{Enabled: true}
	trail := openWith(t, path, o)
	as := func(who string) context.Context {
		return WithPrincipal(context.Background(), Principal{ID: who, Roles: []string{"privacy_officer"}})
	}
	refuse := func(who string) {
		_, err := collect(trail.Query(as(who), Query{}))
		if !errors.Is(err, ErrDenied) {
			t.Fatalf("%s: %v", who, err)
		}
	}
	refuse("mallory")
	if entries, told := refusalsOf(t, trail); entries["mallory"] != 1 || told["mallory"] != 1 {
		t.Fatalf("the first one is not an entry at once: %v, %v", entries, told)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				for _, err := range trail.Query(as("mallory"), Query{}) {
					if !errors.Is(err, ErrDenied) {
						t.Error(err)
					}
				}
				if _, err := trail.Rotate(as("mallory")); !errors.Is(err, ErrDenied) {
					t.Error(err)
				}
			}
		})
	}
	refuse("eve")
	wg.Wait()
	if entries, _ := refusalsOf(t, trail); entries["mallory"] != 1 || entries["eve"] != 1 {
		t.Fatalf("%v", entries)
	}
	mu.Lock()
	now = now.Add(denialPeriod)
	mu.Unlock()
	refuse("mallory")
	if entries, told := refusalsOf(t, trail); entries["mallory"] != 3 || told["mallory"] != 8002 || entries["eve"] != 1 {
		t.Fatalf("%v, %v", entries, told)
	}
	if err := trail.flushDenials(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	// Whoever invents principals gets no more memory, nor entries, than that.
	before := len(trail.denials.by)
	for n := range 2 * maxDenied {
		refuse(fmt.Sprintf("p%d", n))
	}
	if n := len(trail.denials.by); n > maxDenied+1 || before > 1 {
		t.Errorf("%d principals are remembered", n)
	}
	refuse("mallory")
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	o.Access = &Access{}
	trail = openWith(t, path, o)
	entries, told := refusalsOf(t, trail)
	total := int64(0)
	for _, n := range told {
		total += n
	}
	if want := int64(8002 + 1 + 1 + 2*maxDenied); total != want || told["mallory"] != 8003 || told[otherPrincipals] != int64(2*maxDenied-maxDenied+1) || entries[otherPrincipals] != 2 {
		t.Errorf("%d refusals are told of %d: %v, %v", total, want, entries[otherPrincipals], told[otherPrincipals])
	}
}

// A reader counts by itself, and tells when it ends.
func TestARefusedReaderTellsWhenItEnds(t *testing.T) {
	path, o := profileTrail(t, "plain", Options{NoSocket: true})
	o.Access = &Access{Enabled: true}
	openWith(t, path, o).Close()
	reader := *o
	reader.ReadOnly, reader.Access = true, nil
	r := openWith(t, path, &reader)
	for range 5 {
		if _, err := collect(r.Query(context.Background(), Query{})); !errors.Is(err, ErrDenied) {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	entries, told := refusalsOf(t, openWith(t, path, o))
	if entries["nobody"] != 2 || told["nobody"] != 5 {
		t.Errorf("%v, %v", entries, told)
	}
}
