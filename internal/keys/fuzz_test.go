package keys

import (
	"bytes"
	"context"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// FuzzFiles opens a store one of whose files holds anything: it opens or says why
// not, and is not brought down.
func FuzzFiles(f *testing.F) {
	ctx := context.Background()
	kek, err := kms.NewLocal(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	o := Options{FS: durabletest.NewMem(), Dir: "/keys", Origin: "example.com/log", KEK: kek}
	if err := o.FS.Mkdir(o.Dir, 0o700); err != nil {
		f.Fatal(err)
	}
	if err := Create(ctx, o, bytes.Repeat([]byte{9}, 32)); err != nil {
		f.Fatal(err)
	}
	s, err := Open(ctx, o)
	if err != nil {
		f.Fatal(err)
	}
	sub, err := s.Subject(Person, "mia")
	if err == nil {
		_, err = s.Begin(Erasing{EventID: "e", Handles: []string{sub.Handle}}, nil)
	}
	if err != nil {
		f.Fatal(err)
	}
	s.Close()
	for name, text := range map[string]string{untilName: `{"format":1,"until":"2026-01-02T03:04:05.678Z"}`, restoredName: `{"format":1,"created":"2026-01-02T03:04:05.678Z"}`} {
		if err := durable.WriteFile(o.FS, "/keys/"+name, []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	names := []string{deksName, subjectsName, pagesName + "/0-1.jsonl", erasingName, macName, untilName, restoredName}
	files := map[string][]byte{}
	for i, name := range names {
		text, err := durable.ReadFile(o.FS, "/keys/"+name, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		files[name] = text
		f.Add(i, text)
		f.Add(i, []byte(`{"format":2}`))
		f.Add(i, []byte("{}\n"))
	}
	// A page of somebody's who could seal only.
	f.Add(1, bytes.Replace(files[subjectsName], []byte(`"epoch":1,"data":`), []byte(`"epoch":1,"wrap":{"kek":"AAAAAAAAAAAA","by":"hpke:p256","data":"a.b"},"x":`), 1))
	f.Fuzz(func(t *testing.T, which int, text []byte) {
		o := o
		o.FS = durabletest.NewMem()
		for _, dir := range []string{"/keys", "/keys/" + pagesName} {
			if err := o.FS.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for i, name := range names {
			content := files[name]
			if i == int(uint(which)%uint(len(names))) {
				content = text
			}
			if err := durable.CreateFile(o.FS, "/keys/"+name, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if until, err := BackedUpUntil(o.FS, o.Dir); err != nil && !until.IsZero() {
			t.Error("a time beside an error")
		}
		if list, err := List(o.FS, o.Dir); err == nil && len(list) < 2 {
			t.Errorf("%d keys where two files hold some", len(list))
		}
		s, err := Open(ctx, o)
		if err != nil {
			return
		}
		defer s.Close()
		e, pending, err := s.Pending()
		if err == nil && pending && len(e.Handles) == 0 {
			t.Error("an erasure of nobody")
		}
		if _, err := s.MAC(ctx); err != nil {
			return
		}
		if _, err := s.Find(func(Kind, string) bool { return true }); err != nil {
			return
		}
		if _, err := s.Subject(Person, "noah"); err != nil {
			return
		}
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
	})
}
