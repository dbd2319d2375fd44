package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

const origin = "example.org/trail"

// trail is a trail's directory as its creation leaves it.
func trail(t *testing.T, fsys durable.FS) string {
	t.Helper()
	dir := "/x.trail"
	if fsys == durable.OS {
		dir = filepath.Join(t.TempDir(), "x.trail")
	}
	if err := durable.MkdirAll(fsys, filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func pseudonym(t *testing.T, s *Store, id string) string {
	t.Helper()
	p, err := s.Pseudonym(id)
	if err != nil {
		t.Fatalf("pseudonym: %v", err)
	}
	return p
}

func lookup(t *testing.T, s *Store, id string) string {
	t.Helper()
	p, ok, err := s.Lookup(id)
	if err != nil || ok != (p != "") {
		t.Fatalf("lookup: %q, %v, %v", p, ok, err)
	}
	return p
}

// files gives every file below a directory.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[name], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOneIdentifierHasOnePseudonym(t *testing.T) {
	dir := trail(t, durable.OS)
	s := New(durable.OS, dir, origin, nil)
	if p := lookup(t, s, "user123"); p != "" {
		t.Errorf("a pseudonym before there was one: %s", p)
	}
	if all := files(t, dir); len(all) != 0 {
		t.Errorf("looking has made files: %v", all)
	}
	first := pseudonym(t, s, "user123")
	if len(first) != 64 || pseudonym(t, s, "user123") != first || lookup(t, s, "user123") != first {
		t.Errorf("%s, then another", first)
	}
	if pseudonym(t, s, "user124") == first {
		t.Error("two identifiers have one pseudonym")
	}
	again := New(durable.OS, dir, origin, nil)
	if lookup(t, again, "user123") != first || pseudonym(t, again, "user123") != first {
		t.Error("the next process has another")
	}
	forged := "0" + first[1:]
	if forged == first {
		forged = "1" + first[1:]
	}
	for text, is := range map[string]bool{first: true, forged: false, strings.ToUpper(first): false, "": false, "user123": false,
		strings.Repeat("0", 64): false, first + "00": false, first[:62]: false, strings.Repeat("x", 64): false} {
		if again.Is(text) != is {
			t.Errorf("Is(%q) is %v", text, !is)
		}
	}
	other := New(durable.OS, trail(t, durable.OS), origin, nil)
	if other.Is(first) {
		t.Error("a trail without a key knows it")
	}
	if pseudonym(t, other, "user123") == first {
		t.Error("another trail has the same")
	}
	if other.Is(first) {
		t.Error("another trail knows it")
	}
	for _, id := range []string{"", strings.Repeat("x", MaxIdentifier+1), "\xff"} {
		if _, err := s.Pseudonym(id); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes: %v", len(id), err)
		}
		if p := lookup(t, s, id); p != "" {
			t.Errorf("%d bytes: found", len(id))
		}
	}
	if long := strings.Repeat("x", MaxIdentifier); pseudonym(t, s, long) != lookup(t, again, long) {
		t.Error("the longest identifier is not found again")
	}
}

// TestWhoHasTheLinesCanGuessNothing: the pseudonym is no hash that somebody
// without the file could compute, and no file shows an identifier.
func TestWhoHasTheLinesCanGuessNothing(t *testing.T) {
	const id = "mia.li@example.org"
	dir := trail(t, durable.OS)
	s := New(durable.OS, dir, origin, nil)
	p := pseudonym(t, s, id)
	plain := sha256.Sum256([]byte(id))
	if p == hex.EncodeToString(plain[:]) {
		t.Fatal("it is the plain hash")
	}
	all := files(t, dir)
	if len(all) != 3 {
		t.Errorf("%d files, want the key, its mark and one identity", len(all))
	}
	for name, data := range all {
		for _, secret := range []string{id, "mia.li", p, hex.EncodeToString([]byte(id))} {
			if strings.Contains(name, secret) || bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s shows it", filepath.Base(name))
			}
		}
		fi, err := os.Stat(name)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", filepath.Base(name), fi.Mode(), err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "identity")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("identity/: %v, %v", fi.Mode(), err)
	}
	// With the key too: the salt is missing once the file is.
	if err := forget(s, id); err != nil {
		t.Fatal(err)
	}
	if lookup(t, s, id) != "" {
		t.Error("it is known after it was forgotten")
	}
	if again := pseudonym(t, s, id); again == p {
		t.Error("who has the key gets the forgotten pseudonym again")
	}
}

// forget forgets an identifier.
func forget(s *Store, id string) error {
	name, err := s.Name(id)
	if err != nil || name == "" {
		return cmp.Or(err, errors.New("there is no name for it"))
	}
	return s.Forget(name)
}

func TestForgetIsForEachAlone(t *testing.T) {
	dir := trail(t, durable.OS)
	s := New(durable.OS, dir, origin, nil)
	if name, err := s.Name("nobody"); name != "" || err != nil {
		t.Errorf("forget before there is a key: %v", err)
	}
	a, b := pseudonym(t, s, "a"), pseudonym(t, s, "b")
	name := filepath.Join(dir, "identity", s.keys.name("a"))
	if err := os.WriteFile(name+".tmp", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := forget(s, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if lookup(t, s, "a") != "" || lookup(t, s, "b") != b || a == b {
		t.Error("not a alone was forgotten")
	}
	if left := files(t, filepath.Join(dir, "identity")); len(left) != 2 {
		t.Errorf("%d files are left, want b's and the mark", len(left))
	}
}

// A pseudonym leads back to its identifier, as long as that was not forgotten; nothing
// else does, and what is damaged of another's is no answer.
func TestReveal(t *testing.T) {
	dir := trail(t, durable.OS)
	s := New(durable.OS, dir, origin, nil)
	ctx := t.Context()
	if _, _, err := s.Reveal(ctx, strings.Repeat("0", nameSize)); !errors.Is(err, ErrNoPseudonym) {
		t.Errorf("before there is a key: %v", err)
	}
	a, b := pseudonym(t, s, "a"), pseudonym(t, s, "b")
	for p, want := range map[string]string{a: "a", b: "b"} {
		if id, ok, err := New(durable.OS, dir, origin, nil).Reveal(ctx, p); id != want || !ok || err != nil {
			t.Errorf("%q, %v, %v", id, ok, err)
		}
	}
	for _, text := range []string{"", "a", strings.ToUpper(a), s.keys.name("a"), a[:62] + "zz"} {
		if id, ok, err := s.Reveal(ctx, text); !errors.Is(err, ErrNoPseudonym) || ok || id != "" {
			t.Errorf("%q: %q, %v", text, id, err)
		}
	}
	if err := forget(s, "a"); err != nil {
		t.Fatal(err)
	}
	if id, ok, err := s.Reveal(ctx, a); id != "" || ok || err != nil {
		t.Errorf("forgotten: %q, %v, %v", id, ok, err)
	}
	c := pseudonym(t, s, "c")
	flip(t, filepath.Join(dir, "identity", s.keys.name("b")))
	if id, ok, err := s.Reveal(ctx, c); id != "c" || !ok || err != nil {
		t.Errorf("beside a damaged file: %q, %v, %v", id, ok, err)
	}
	if _, ok, err := s.Reveal(ctx, b); ok || !errors.Is(err, ErrDamaged) {
		t.Errorf("of a damaged file: %v, %v", ok, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := s.Reveal(ended, c); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
}

func TestAClosedStoreMakesNone(t *testing.T) {
	s := New(durable.OS, trail(t, durable.OS), origin, nil)
	p := pseudonym(t, s, "user123")
	s.Close()
	if _, err := s.Pseudonym("user123"); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if lookup(t, s, "user123") != p {
		t.Error("it can't be looked up any more")
	}
}

func TestManyAtOnce(t *testing.T) {
	s := New(durable.OS, trail(t, durable.OS), origin, nil)
	got := make([][]string, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			for k := range 20 {
				p, err := s.Pseudonym(fmt.Sprint("user", k))
				if err != nil {
					t.Error(err)
				}
				got[i] = append(got[i], p)
			}
		})
	}
	wg.Wait()
	for _, g := range got[1:] {
		if strings.Join(g, ",") != strings.Join(got[0], ",") {
			t.Error("two callers got different pseudonyms")
		}
	}
}

func TestDamageIsNamedAndNothingIsMadeAnew(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(t *testing.T, dir, file, other string)
		want   string
	}{
		"changed":   {func(t *testing.T, _, file, _ string) { flip(t, file) }, "does not open"},
		"exchanged": {func(t *testing.T, _, file, other string) { move(t, other, file) }, "does not open"},
		"cut":       {func(t *testing.T, _, file, _ string) { write(t, file, nil) }, "not the JSON"},
		"other key": {func(t *testing.T, dir, _, _ string) { write(t, filepath.Join(dir, "keys", "identity.key"), newKey()) }, "is not the key of identity/"},
		"short key": {func(t *testing.T, dir, _, _ string) {
			write(t, filepath.Join(dir, "keys", "identity.key"), []byte("x"))
		}, "1 bytes, want 32"},
		"key is lost":  {func(t *testing.T, dir, _, _ string) { os.Remove(filepath.Join(dir, "keys", "identity.key")) }, "identity.key is missing"},
		"mark is lost": {func(t *testing.T, dir, _, _ string) { os.Remove(filepath.Join(dir, "identity", markName)) }, "store.json is missing"},
		"key and mark": {func(t *testing.T, dir, _, _ string) {
			os.Remove(filepath.Join(dir, "identity", markName))
			os.Remove(filepath.Join(dir, "keys", "identity.key"))
		}, "store.json is missing"},
		"mark is broken": {func(t *testing.T, dir, _, _ string) { write(t, filepath.Join(dir, "identity", markName), []byte("x")) }, "store.json: not the JSON"},
		"later format": {func(t *testing.T, _, file, _ string) { write(t, file, []byte(`{"format":2,"data":"AAAA"}`)) },
			"format 2, this program knows 1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := trail(t, durable.OS)
			s := New(durable.OS, dir, origin, nil)
			pseudonym(t, s, "user123")
			pseudonym(t, s, "user124")
			file := func(id string) string { return filepath.Join(dir, "identity", s.keys.name(id)) }
			tc.damage(t, dir, file("user123"), file("user124"))
			s = New(durable.OS, dir, origin, nil)
			before := files(t, dir)
			_, errMake := s.Pseudonym("user123")
			_, _, errLook := s.Lookup("user123")
			for _, err := range []error{errMake, errLook} {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "user123") {
					t.Errorf("%v, want %q", err, tc.want)
				}
			}
			if after := files(t, dir); len(after) != len(before) {
				t.Errorf("%d files, then %d", len(before), len(after))
			}
		})
	}
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// flip changes one character of the box.
func flip(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := len(data) / 2
	data[at] = map[bool]byte{false: 'x', true: 'y'}[data[at] == 'x'] // base64url stays such
	write(t, name, data)
}

// TestWhatWasGivenOutSurvives: at every failing operation, and at every power
// failure, a pseudonym that was given out is the one that is found later, and
// what was forgotten stays so.
func TestWhatWasGivenOutSurvives(t *testing.T) {
	scenario := func(t *testing.T, r *durabletest.Run) {
		dir := trail(t, r.FS)
		s := New(r.FS, dir, origin, nil)
		given := map[string]string{}
		forgotten := ""
		r.Inject(func() {
			for _, id := range []string{"a", "b", "a", "b", "c"} {
				if p, err := s.Pseudonym(id); err == nil {
					if was := given[id]; was != "" && was != p {
						t.Errorf("%s was given two", id)
					}
					given[id] = p
				}
			}
			if forget(s, "b") == nil {
				forgotten = "b"
			}
		})
		next := New(r.Restart(), dir, origin, nil)
		for id, p := range given {
			found, ok, err := next.Lookup(id)
			switch {
			case err != nil:
				t.Errorf("%s: %v", id, err)
			case id == forgotten && ok:
				t.Errorf("%s is there again", id)
			case id == "b" || ok && found == p: // a Forget that failed may have worked
			default:
				t.Errorf("%s had %s, and has %q", id, p, found)
			}
		}
		for _, id := range []string{"a", "b", "c"} { // whatever was left, it goes on
			p, err := next.Pseudonym(id)
			if err != nil || id != "b" && given[id] != "" && p != given[id] {
				t.Errorf("%s, afterwards: %s, %v", id, p, err)
			}
		}
	}
	t.Run("fault", func(t *testing.T) { durabletest.EachOp(t, scenario) })
	t.Run("crash", func(t *testing.T) { durabletest.EachCrash(t, 5, scenario) })
	// A process that dies after a rename leaves a name that the next one finds and
	// that is not on the disk yet.
	t.Run("killed, then crash", func(t *testing.T) {
		durabletest.EachOp(t, func(t *testing.T, r *durabletest.Run) {
			dir := trail(t, r.FS)
			r.Inject(func() { _, _ = New(r.FS, dir, origin, nil).Pseudonym("a") })
			p, err := New(r.Mem, dir, origin, nil).Pseudonym("a")
			if err != nil {
				t.Fatal(err)
			}
			if found, _, err := New(r.Mem.Crash(nil), dir, origin, nil).Lookup("a"); err != nil || found != p {
				t.Errorf("given out %s, found %q, %v", p, found, err)
			}
		})
	})
}

func FuzzOpen(f *testing.F) {
	k, err := deriveKeys(bytes.Repeat([]byte{7}, keySize))
	if err != nil {
		f.Fatal(err)
	}
	name := k.name("user123")
	// A file is not the same twice, and a fuzz test runs in several processes.
	good := []byte(`{"format":1,"data":"OjDWaIiMCSXdXQ81umsZqd7My4X5Dk1Xit35hlNjp3zDkhRgrvpLsTV5RsrLZ4B4SIiR-zBchEIIkRA5OkN9JSCENIbrYHyx9k_RbMx8Szg"}` + "\n")
	if _, id, err := k.open(origin, name, good); err != nil || id != "user123" {
		f.Fatal(id, err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":2,"data":""}`))
	f.Add([]byte(`{"format":1,"data":"AAAA","more":1}`))
	f.Add([]byte("{}{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		salt, id, err := k.open(origin, name, data)
		if err != nil {
			if strings.Contains(err.Error(), "user123") {
				t.Errorf("the error shows it: %v", err)
			}
			return
		}
		// Nobody without the key makes a file that opens: it has the box of good.
		if id != "user123" || len(salt) != saltSize {
			t.Errorf("%q was opened to %q", data, id)
		}
		a, err := parse(good)
		b, err2 := parse(data)
		if err != nil || err2 != nil || a != b {
			t.Errorf("%q opens", data)
		}
	})
}

func BenchmarkPseudonymKnown(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "x.trail")
	if err := durable.MkdirAll(durable.OS, filepath.Join(dir, "keys"), 0o700); err != nil {
		b.Fatal(err)
	}
	s := New(durable.OS, dir, origin, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Pseudonym("user123"); err != nil {
			b.Fatal(err)
		}
	}
}

// A store that was made from docs/format.md alone, in another language (Python's
// hmac and OpenSSL), is read as what it is.
func TestAStoreMadeFromTheDocumentIsRead(t *testing.T) {
	const (
		id        = "mia_li_3668"
		name      = "56f8ef35688472f91268df463a74b31ee2479959c73b9539b2e13e256e545eda"
		pseudonym = "ffc2f46a2acd286eaefa76cd5d948887a6a6cb58a17f3f5095fc02d225998cc7"
		keyID     = "c90622a13947c3700618e57fe9adb2e3"
		data      = "yMnKy8zNzs_Q0dLT1NXW17_ELSE1Hawwf3QuYZyrWrnnPqTsZaI9DGtxVkFkeijWAjyo48QC6pHY0omWG3Ce_05h9jXMaay0j1fLD9fOEIU"
	)
	dir := trail(t, durable.OS)
	key := make([]byte, keySize)
	for i := range key {
		key[i] = byte(i)
	}
	write(t, filepath.Join(dir, "keys", "identity.key"), key)
	if err := os.Mkdir(filepath.Join(dir, "identity"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "identity", "store.json"), []byte(`{"format":1,"data":"`+keyID+"\"}\n"))
	write(t, filepath.Join(dir, "identity", name), []byte(`{"format":1,"data":"`+data+"\"}\n"))
	s := New(durable.OS, dir, origin, nil)
	p, err := s.Pseudonym(id)
	if found := lookup(t, s, id); err != nil || p != pseudonym || found != p || !s.Is(p) {
		t.Errorf("%s, %s, %v", p, found, err)
	}
}

func BenchmarkPseudonymNew(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "x.trail")
	if err := durable.MkdirAll(durable.OS, filepath.Join(dir, "keys"), 0o700); err != nil {
		b.Fatal(err)
	}
	s := New(durable.OS, dir, origin, nil)
	for i := 0; b.Loop(); i++ {
		if _, err := s.Pseudonym(fmt.Sprint("user", i)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReveal is what one of so many identities costs, by the identity.
func BenchmarkReveal(b *testing.B) {
	dir := b.TempDir()
	if err := durable.OS.Mkdir(dir+"/keys", 0o700); err != nil {
		b.Fatal(err)
	}
	s := New(durable.OS, dir, origin, nil)
	const n = 2000
	for i := range n {
		if _, err := s.Pseudonym(fmt.Sprint("user", i)); err != nil {
			b.Fatal(err)
		}
	}
	p, err := s.Pseudonym("last")
	if err != nil {
		b.Fatal(err)
	}
	name, err := s.Name("last")
	if err != nil || s.Forget(name) != nil { // all files are read
		b.Fatal(err)
	}
	for b.Loop() {
		if _, ok, err := s.Reveal(b.Context(), p); ok || err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/identity")
}
