package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// What only the holder may do, another process has it do: with the same answers and
// errors as if it held the trail itself.
func TestLifecycleThroughTheHolder(t *testing.T) {
	ctx := context.Background()
	c := newTimed(t, Options{RetentionDays: 5})
	c.days(8, "a")
	o := c.opts
	o.RetentionDays = 0
	client := openWith(t, c.path, &o)
	if client.holds() {
		t.Fatal("two holders")
	}
	same := func(what string, do func(*Trail) (any, error)) {
		t.Helper()
		here, errHere := do(c.Trail)
		there, errThere := do(client)
		a, _ := json.Marshal(here)
		b, _ := json.Marshal(there)
		if !bytes.Equal(a, b) {
			t.Errorf("%s:\nhere  %s\nthere %s", what, a, b)
		}
		if (errHere == nil) != (errThere == nil) {
			t.Errorf("%s: here %v, there %v", what, errHere, errThere)
		} else if errHere != nil {
			text, hint := advice.Split(errHere)
			if text2, hint2 := advice.Split(errThere); text != text2 || hint != hint2 {
				t.Errorf("%s:\nhere  %v\nthere %v", what, errHere, errThere)
			}
		}
	}
	same("dry run", func(x *Trail) (any, error) { return x.Prune(ctx, &PruneOptions{DryRun: true}) })
	same("an unknown hold", func(x *Trail) (any, error) { return nil, x.LiftHold(ctx, "none", "x") })
	same("no reason", func(x *Trail) (any, error) { return nil, x.LiftHold(ctx, "none", "") })
	same("a hold on nothing", func(x *Trail) (any, error) { return x.AddHold(ctx, HoldRequest{Reason: "x"}) })
	same("a period of no days", func(x *Trail) (any, error) { return nil, x.SetRetention(ctx, -1, false) })
	if err := client.SetRetention(ctx, -1, false); !errors.Is(err, ErrOption) {
		t.Errorf("%v", err)
	}
	if err := client.LiftHold(ctx, "none", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}

	// The newest due segment is held, the others are pruned.
	dry, err := client.Prune(ctx, &PruneOptions{DryRun: true})
	if err != nil || !dry.Segments[2].Prune || dry.Segments[3].Prune {
		t.Fatalf("%+v, %v", dry, err)
	}
	until := dry.Segments[2].Newest
	held, err := client.AddHold(ctx, HoldRequest{Agent: "a", Since: until.Add(-25 * time.Hour), Until: until.Add(-time.Hour), Reason: "case 17"})
	if err != nil || held.By != principal() || held.Open || len(held.Ranges) == 0 {
		t.Fatalf("%+v, %v", held, err)
	}
	same("holds", func(x *Trail) (any, error) { return x.Holds(ctx) })
	sealed, err := client.Rotate(ctx)
	if err != nil || sealed.Count == 0 || sealed.First != c.journal.First()-sealed.Count {
		t.Fatalf("%+v, %v", sealed, err)
	}
	r, err := client.Prune(ctx, nil)
	if err != nil || r.Pruned.Segments == 0 || len(r.Pruned.Said) == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if i := slices.IndexFunc(r.Segments, func(s PruneSegment) bool { return strings.Contains(s.Why, held.ID) }); i < 0 {
		t.Errorf("nothing is held: %+v", r.Segments)
	}
	if got := c.intact(); got != r.Pruned.Entries {
		t.Errorf("%d entries are pruned, want %d", got, r.Pruned.Entries)
	}
	if err := client.LiftHold(ctx, held.ID, "closed"); err != nil {
		t.Fatal(err)
	}
	if err := client.SetRetention(ctx, 7, true); err != nil {
		t.Fatal(err)
	}
	if kept, err := c.Retention(ctx); err != nil || kept.Days != 7 || !kept.Locked {
		t.Errorf("%+v, %v", kept, err)
	}

	// A clock that is not believed here is not believed there.
	c.opts.RetentionDays = 0
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.set(c.at().AddDate(70, 0, 0))
	c.open()
	if _, err := client.Prune(ctx, nil); !errors.Is(err, ErrClock) {
		t.Errorf("%v", err)
	}
	same("a clock that jumped", func(x *Trail) (any, error) {
		_, err := x.Prune(ctx, nil)
		return nil, err
	})
}

// Whatever a peer has done names the peer, and not the holder's user.
func TestLifecycleEntriesNameThePeer(t *testing.T) {
	ctx := context.Background()
	c := newTimed(t, Options{RetentionDays: 2})
	c.days(4, "a")
	peer, shared := socket.Peer{UID: 4711, PID: 1}, sharedTrail{c.Trail}
	from := c.journal.Next()
	for _, call := range []struct {
		do    func(context.Context, socket.Peer, json.RawMessage) ([]byte, error)
		asked string
	}{{shared.Rotate, `{}`}, {shared.AddHold, `{"agent":"nobody","reason":"x"}`}, {shared.SetRetention, `{"days":3}`}, {shared.Prune, `{}`}} {
		if text, err := call.do(ctx, peer, []byte(call.asked)); err != nil {
			t.Fatalf("%s: %s, %v", call.asked, text, err)
		}
	}
	var holds []LegalHold
	if holds, _ = c.Holds(ctx); len(holds) != 1 || holds[0].By != "uid:4711" {
		t.Fatalf("%+v", holds)
	}
	lift, _ := json.Marshal(map[string]string{"hold": holds[0].ID, "reason": "x"})
	if _, err := shared.LiftHold(ctx, peer, lift); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for e, err := range c.scan(ctx, Query{Trails: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Index >= from && e.Metadata.Text("principal") == "uid:4711" {
			said[e.Action] = true
		}
	}
	for _, action := range []string{"segment_sealed", "hold_added", "policy_set", "segments_pruned", "hold_lifted"} {
		if !said[action] {
			t.Errorf("%s does not name the peer", action)
		}
	}
	c.intact()
	for _, wrong := range []string{`{"dryrun":true}`, `{"dry_run":"yes"}`} {
		if _, err := shared.Prune(ctx, peer, []byte(wrong)); !errors.Is(err, &socket.Error{Code: socket.Protocol}) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
