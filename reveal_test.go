package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A pseudonym is turned back for who has the store, its key, a role and a reason; that
// is an entry first; and who was erased has none.
func TestReveal(t *testing.T) {
	ctx := context.Background()
	for _, profile := range []string{"plain", "gdpr"} {
		path, o := profileTrail(t, profile, Options{})
		trail := openWith(t, path, o)
		p, other := pseudonymize(t, trail, "canary-mia"), pseudonymize(t, trail, "noah")
		mustRecord(t, trail, under("user_id_hash", p))
		for _, c := range []struct{ pseudonym, reason string }{{p, ""}, {p, " "}} {
			if user, err := trail.Reveal(ctx, c.pseudonym, c.reason); !errors.Is(err, ErrOption) || user != "" {
				t.Errorf("%q: %q, %v", c.reason, user, err)
			}
		}
		strange := []byte(p)
		strange[0] ^= 1
		for _, text := range []string{"", "canary-mia", strings.Repeat("0", 64), string(strange), strings.ToUpper(p)} {
			if user, err := trail.Reveal(ctx, text, "x"); !errors.Is(err, ErrNotFound) || user != "" {
				t.Errorf("%q: %q, %v", text, user, err)
			}
		}
		reader := *o
		reader.ReadOnly = true
		r := openWith(t, path, &reader)
		for _, by := range []*Trail{trail, r} {
			if user, err := by.Reveal(ctx, p, "canary: case 17"); err != nil || user != "canary-mia" {
				t.Fatalf("%q, %v", user, err)
			}
		}
		if user, err := trail.Reveal(ctx, other, "x"); err != nil || user != "noah" {
			t.Errorf("%q, %v", user, err)
		}
		said := found(t, trail, Query{EventTypes: []string{"AUDIT_QUERY"}, Action: "pseudonym_revealed"})
		if len(said) != 3 || said[0].Inputs.Text("user") != p || said[0].Inputs.Text("reason") != "canary: case 17" {
			t.Fatalf("%d entries: %s", len(said), said[0].View())
		}
		for _, e := range said {
			if bytes.Contains(e.View(), []byte("canary-mia")) || profile == "gdpr" && bytes.Contains(e.Line(), []byte("canary")) {
				t.Errorf("%s", e.Line())
			}
		}
		if profile == "plain" {
			continue
		}
		if _, err := trail.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "x"}); err != nil {
			t.Fatal(err)
		}
		if user, err := trail.Reveal(ctx, p, "again"); !errors.Is(err, ErrNotFound) || user != "" || !strings.Contains(err.Error(), "erased") {
			t.Errorf("%q, %v", user, err)
		}
		if said := found(t, trail, Query{EventTypes: []string{"AUDIT_QUERY"}, Action: "reveal_refused"}); len(said) != 1 {
			t.Errorf("the attempt is no entry: %d", len(said))
		}
		if user, err := trail.Reveal(ctx, other, "x"); err != nil || user != "noah" {
			t.Errorf("%q, %v", user, err)
		}
		trail.Close()
		// Without the key, and with another's, it is not.
		without := *o
		without.ReadOnly, without.KEK = true, testKEK(t, 2)
		if user, err := openWith(t, path, &without).Reveal(ctx, other, "x"); err == nil || user != "" {
			t.Errorf("without the key: %q", user)
		}
	}
}

// unrecordable is a trail whose readings can't be recorded: it is locked by a holder
// without a socket, and has no place for what waits.
func unrecordable(t *testing.T, access *Access) (string, *Options, *Trail) {
	t.Helper()
	path, o := profileTrail(t, "plain", Options{NoSocket: true, Access: access})
	holder := openWith(t, path, o)
	mustRecord(t, holder, personalEvent("mia", "t"))
	spool := filepath.Join(trailDir(path), "spool")
	if err := errors.Join(os.RemoveAll(spool), os.WriteFile(spool, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	reader := *o
	reader.ReadOnly, reader.Access = true, nil
	return path, &reader, holder
}

// What can't be recorded is not shown where access is controlled; where it is not, it
// is shown and told; a copy that nobody writes is read unrecorded, where that is asked
// for, and says so.
func TestWhatCantBeRecordedIsNotShown(t *testing.T) {
	auditor := WithPrincipal(context.Background(), Principal{ID: "ann", Roles: []string{"auditor", "compliance_officer"}})
	for _, controlled := range []bool{true, false} {
		var access *Access
		if controlled {
			access = &Access{Enabled: true}
		}
		path, o, holder := unrecordable(t, access)
		var warned []string
		o.Warn = func(err error) { warned = append(warned, err.Error()) }
		r := openWith(t, path, o)
		reads := map[string]func(*Trail) (int, error){
			"query": func(r *Trail) (int, error) { e, err := collect(r.Query(auditor, Query{})); return len(e), err },
			"tail":  func(r *Trail) (int, error) { e, err := collect(r.Tail(auditor, Query{}, 9, false)); return len(e), err },
			"trace": func(r *Trail) (int, error) { e, err := r.Trace(auditor, "t"); return len(e), err },
			"prove": func(r *Trail) (int, error) { b, err := r.Prove(auditor, 0); return len(b), err },
			"report": func(r *Trail) (int, error) {
				c, err := r.ComplianceReport(auditor)
				if c == nil {
					return 0, err
				}
				return int(c.TotalEntries), err
			},
			"export": func(r *Trail) (int, error) { m, err := r.ExportUser(auditor, "mia", io.Discard); return m.Entries, err },
		}
		for name, read := range reads {
			warned = nil
			n, err := read(r)
			told := strings.Contains(strings.Join(warned, "\n"), "this reading could not be recorded")
			if controlled && (!errors.Is(err, ErrDenied) || n != 0 || !strings.Contains(err.Error(), "not shown")) || !controlled && (err != nil || n == 0 || !told) {
				t.Errorf("%s, controlled %v: %d, %v, %q", name, controlled, n, err, warned)
			}
		}
		// Turning a pseudonym back is never done unrecorded.
		p := pseudonymize(t, holder, "mia")
		officer := WithPrincipal(auditor, Principal{ID: "dpo", Roles: []string{"privacy_officer"}})
		if user, err := r.Reveal(officer, p, "x"); !errors.Is(err, ErrDenied) || user != "" {
			t.Errorf("revealed, controlled %v: %q, %v", controlled, user, err)
		}
		o.Unrecorded = true
		if _, err := Open(path, o); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), "it is held") {
			t.Errorf("a trail that is held is no copy: %v", err)
		}
		if err := holder.Close(); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), filepath.Base(path))
		copyTree(t, filepath.Dir(path), filepath.Dir(copied))
		warned = nil
		r = openWith(t, copied, o)
		if len(warned) != 1 || !strings.Contains(warned[0], "not recorded") {
			t.Errorf("%q", warned)
		}
		for name, read := range reads {
			if n, err := read(r); err != nil || n == 0 {
				t.Errorf("%s of a copy: %d, %v", name, n, err)
			}
		}
		c, err := r.ComplianceReport(auditor)
		var text bytes.Buffer
		if err != nil || c.WriteText(&text) != nil || !c.Unrecorded || !strings.Contains(text.String(), "Recorded: no") {
			t.Errorf("%v\n%s", err, text.Bytes())
		}
		if m, err := r.ExportUser(auditor, "mia", io.Discard); err != nil || !m.Unrecorded {
			t.Errorf("%+v, %v", m, err)
		}
		if controlled {
			if _, err := collect(r.Query(context.Background(), Query{})); !errors.Is(err, ErrDenied) {
				t.Errorf("nobody reads the copy: %v", err)
			}
		}
		if user, err := r.Reveal(officer, p, "x"); !errors.Is(err, ErrOption) && !errors.Is(err, ErrDenied) || user != "" {
			t.Errorf("of a copy: %q, %v", user, err)
		}
	}
	path, o, _ := unrecordable(t, nil)
	o.ReadOnly, o.Unrecorded = false, true
	if _, err := Open(path, o); !errors.Is(err, ErrOption) {
		t.Errorf("to write: %v", err)
	}
}

// Who only reads is bound by the roles that the trail remembers, whatever
// configuration it brings along; and changes nothing of them.
func TestAReaderBringsNoRoles(t *testing.T) {
	path, o := profileTrail(t, "plain", Options{Access: &Access{Enabled: true}})
	openWith(t, path, o).Close()
	for _, write := range []bool{false, true} {
		reader := *o
		reader.ReadOnly, reader.Access = true, &Access{Enabled: false}
		if write { // through the socket of who holds it
			holder := *o
			holder.Access = nil
			openWith(t, path, &holder)
			reader.ReadOnly = false
		}
		r := openWith(t, path, &reader)
		if r.holds() {
			t.Fatal("two holders")
		}
		if _, err := collect(r.Query(context.Background(), Query{})); !errors.Is(err, ErrDenied) {
			t.Errorf("write %v: %v", write, err)
		}
		s := *o
		s.Access, s.ReadOnly = nil, true
		if !openWith(t, path, &s).controlled() {
			t.Errorf("write %v: it is open to all", write)
		}
	}
}
