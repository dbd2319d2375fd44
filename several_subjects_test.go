package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// An entry of two people, what noah did for mia: each combination of a hold on one of
// them, an erasure of one of them and an export to each does what the format says. A
// hold on either blocks the erasure of both; an erasure of either takes the fields
// from both; whoever's they still are is given them, without what is the other's alone.
func TestSeveralSubjects(t *testing.T) {
	ctx := context.Background()
	p := rules(t, policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"book"}}, Subjects: []string{"/inputs/for"}}}})
	for _, held := range []string{"", "mia", "noah"} {
		for _, erased := range []string{"", "mia", "noah"} {
			t.Run(fmt.Sprintf("held %s erased %s", held, erased), func(t *testing.T) {
				path, o := profileTrail(t, "gdpr", Options{Policy: p})
				trail := openWith(t, path, o)
				book := personalEvent("noah", "t2")
				book.Action, book.Inputs = "tool_use:book", Of(map[string]any{"for": "mia", "note": "shared canary"})
				mustRecord(t, trail, book, personalEvent("mia", "t1"), personalEvent("noah", "t3"))
				if held != "" {
					store := trail.enc.Load().store
					who, err := store.Find(func(k keys.Kind, id string) bool { return k == keys.Person && id == held })
					if err != nil || len(who) != 1 {
						t.Fatal(who, err)
					}
					holdOn(t, trail, map[string]any{"handles": []string{who[0].Handle}})
				}
				gone := false
				if erased != "" {
					_, err := trail.EraseUser(ctx, erased, &EraseOptions{Reason: "asked"})
					// The hold is on fields that are both's, whoever is to be erased.
					if blocked := errors.Is(err, ErrHeld); blocked != (held != "") || err != nil && !blocked {
						t.Fatalf("erase %s with a hold on %q: %v", erased, held, err)
					}
					gone = held == ""
				}
				for _, user := range []string{"mia", "noah"} {
					x := exportUser(t, trail, user)
					want := 2 // the shared one, and their own
					if gone {
						want = 1
					}
					if gone && user == erased {
						want = 0
					}
					if len(x.entries) != want || x.manifest.Proved != want {
						t.Errorf("%s: %d entries, %d proved, want %d", user, len(x.entries), x.manifest.Proved, want)
					}
					if shared := strings.Contains(x.text["entries.json"], "shared canary"); shared == gone {
						t.Errorf("%s: the shared field is given: %v", user, shared)
					}
					if user == "mia" && strings.Contains(x.text["entries.json"], `"noah"`) {
						t.Error("mia is told who did it")
					}
				}
				verifyIntact(t, path, o)
			})
		}
	}
}
