package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

func TestTailGivesTheNewest(t *testing.T) {
	trail := openTemp(t, nil)
	ctx := context.Background()
	for i := range 20 {
		if _, err := trail.Record(ctx, event(fmt.Sprint("agent-", i%2), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if i == 15 {
			if _, err := trail.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		q    Query
		n    int
		want string
	}{
		{Query{}, 3, "17 18 19"},
		{Query{Agent: "agent-0"}, 4, "12 14 16 18"},
		{Query{}, 0, ""},
		{Query{Agent: "nobody"}, 3, ""},
	} {
		entries, err := collect(trail.Tail(ctx, tc.q, tc.n, false))
		var got []string
		for _, e := range entries {
			got = append(got, e.Action)
		}
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%+v: %v, %v, want %s", tc.q, got, err, tc.want)
		}
	}
	for _, q := range []Query{{Limit: 1}, {Order: Newest}, {Cursor: "1"}} {
		if _, err := collect(trail.Tail(ctx, q, 1, false)); err == nil {
			t.Errorf("%+v is taken", q)
		}
	}
}

// A session that follows gets every entry once and in order, whoever writes,
// while segments are sealed under it; it is one reading; and it ends with its
// context, without an error.
func TestFollowMissesAndDoublesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	opts := &Options{SegmentBytes: 64 << 10, interval: 5 * time.Millisecond}
	ctx, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	const writers, each, before = 4, 700, 10
	total := before + writers*each
	write := func(from, n int) {
		w, err := Open(path, opts)
		if err != nil {
			t.Error(err)
			return
		}
		for i := from; i < from+n; i++ {
			if _, err := w.Record(context.Background(), event("a", fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
			if i%90 == 0 { // also by hand, several within one look
				if _, err := w.Rotate(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	write(0, before)
	reader := openReadOnly(t, path)
	started := make(chan struct{})
	go func() {
		<-started
		for i := range writers {
			write(before+i*each, each)
		}
	}()
	got := 0
	for e, err := range reader.Tail(ctx, Query{Agent: "a"}, 4, true) {
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 {
			got = before - 4 // what the session began with
			close(started)
		}
		if e.Action != fmt.Sprint(got) {
			t.Fatalf("entry %d is %s where %d is due", e.Index, e.Action, got)
		}
		if got++; got == total {
			end() // ends the session
		}
	}
	if got != total {
		t.Fatalf("%d of %d entries", got, total)
	}
	readings, err := collect(reader.Query(context.Background(), Query{EventTypes: []string{"AUDIT_QUERY"}, Action: "tail"}))
	if err != nil || len(readings) != 1 {
		t.Fatalf("%d readings, %v", len(readings), err)
	}
}

// What a crash takes back was not shown: uncovered lines are never followed.
func TestFollowShowsOnlyWhatIsCovered(t *testing.T) {
	m := newMem(t)
	writer, err := Open(memLog, memOptions(m))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	reader, err := Open(memLog, &Options{ReadOnly: true, fs: m})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	seen := make(chan string)
	go func() {
		defer close(seen)
		for e, err := range reader.Tail(ctx, Query{Agent: "a"}, 1, true) {
			if err != nil {
				seen <- err.Error()
				return
			}
			seen <- e.Action
		}
	}()
	if _, err := writer.Record(ctx, event("a", "first")); err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-seen:
		t.Fatalf("%s before a checkpoint covers it", s)
	case <-time.After(5 * followInterval):
	}
	if err := writer.signer.sign(); err != nil {
		t.Fatal(err)
	}
	if s := <-seen; s != "first" {
		t.Fatal(s)
	}
	end()
	if s, ok := <-seen; ok {
		t.Fatal(s)
	}
}

// A trail that another one takes the place of ends the session with an error.
func TestFollowEndsWhenTheTrailIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if _, err := Init(path, nil); err != nil {
		t.Fatal(err)
	}
	reader := openReadOnly(t, path)
	ctx, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	for _, err := range reader.Tail(ctx, Query{Trails: true}, 1, true) {
		if err != nil {
			if ctx.Err() != nil {
				t.Fatal("it did not end")
			}
			return
		}
		if _, err := Init(path, &InitOptions{SuccessorOf: path}); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("it ended without an error")
}

// A followed line that is broken is named, and those after it follow.
func TestFollowGoesOnAfterABrokenLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	reader := openReadOnly(t, path)
	ctx, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	if _, err := w.Record(ctx, event("a", "first")); err != nil {
		t.Fatal(err)
	}
	if err := w.signer.sign(); err != nil {
		t.Fatal(err)
	}
	var got []string
	broken := int64(-1)
	for e, err := range reader.Tail(ctx, Query{}, 5, true) {
		switch {
		case isBroken(err):
			got = append(got, fmt.Sprint("broken ", e.Index))
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, e.Action)
		}
		if len(got) == 3 {
			break
		}
		if len(got) == 1 {
			r, err := w.Record(ctx, event("a", "second"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Record(ctx, event("a", "third")); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			broken = r.Index
			at := len(bytes.Join(bytes.SplitAfter(data, []byte{'\n'})[:r.Index], nil))
			f, err := durable.OS.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("["), int64(at)); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	if want := []string{"first", fmt.Sprint("broken ", broken), "third"}; !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
}

// Entries whose file is gone are named as missing, and those after it follow.
func TestFollowNamesWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	record := func(action string) {
		if _, err := w.Record(ctx, event("a", action)); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func() SegmentInfo {
		s, err := w.Rotate(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	record("first")
	if err := w.signer.sign(); err != nil {
		t.Fatal(err)
	}
	var lost SegmentInfo
	var got []string
	for e, err := range openReadOnly(t, path).Tail(ctx, Query{}, 5, true) {
		gap := new(GapError)
		switch {
		case errors.As(err, &gap):
			if gap.First != lost.First || gap.Count != lost.Count || e.Index != gap.First {
				t.Errorf("%v, lost are %d from %d on", err, lost.Count, lost.First)
			}
			got = append(got, "missing")
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, e.Action)
		}
		if len(got) == 1 {
			record("second")
			rotate()
			record("third")
			lost = rotate()
			record("fourth")
			rotate()
			record("fifth")
			if err := os.Remove(filepath.Join(w.dir, filepath.FromSlash(lost.File))); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) == 5 {
			break
		}
	}
	if want := []string{"first", "second", "missing", "fourth", "fifth"}; !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
}
