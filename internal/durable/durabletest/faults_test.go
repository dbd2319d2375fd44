package durabletest_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	. "github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

// session does every operation that changes something once, and says what
// went wrong. It goes on after an error.
func session(fsys durable.FS) (errs map[string]error) {
	errs = map[string]error{}
	note := func(kind string, err error) {
		if err != nil {
			errs[kind] = err
		}
	}
	note("mkdir", fsys.Mkdir("/t/d", 0o700))
	f, err := fsys.OpenFile("/t/a", os.O_RDWR|os.O_CREATE, 0o600)
	note("create", err)
	if f != nil {
		note("lock", fsys.Lock(f))
		note("reserve", f.Reserve(100))
		_, err = f.Write([]byte("0123456789"))
		note("write", err)
		_, err = f.WriteAt([]byte("abcdef"), 2)
		note("writeat", err)
		note("truncate", f.Truncate(9))
		note("sync", f.Sync())
		note("close", f.Close())
	}
	note("chmod", fsys.Chmod("/t/a", 0o400))
	note("link", fsys.Link("/t/a", "/t/b"))
	note("rename", fsys.Rename("/t/b", "/t/c"))
	note("remove", fsys.Remove("/t/a"))
	note("syncdir", fsys.SyncDir("/t"))
	return errs
}

func newSession(t *testing.T) *Mem {
	m := NewMem()
	ok(t, m.Mkdir("/t", 0o700))
	return m
}

const sessionTrace = `mkdir d
create a
lock a
reserve a 100
write a 10
writeat a 6
truncate a 9
sync a
close a
chmod a
link a -> b
rename b -> c
remove a
syncdir .
`

func TestTraceHasEveryChangeInOrder(t *testing.T) {
	trace := &Trace{Root: "/t", Sizes: true}
	f := NewFaults(newSession(t), func(op Op) Action { trace.Record(op); return Pass })
	if errs := session(f); len(errs) > 0 {
		t.Fatal(errs)
	}
	must(f.ReadDir("/t"))(t)
	must(f.Stat("/t/c"))(t)
	if got := found(t, f, "/t/c"); got != "01abcdef8" {
		t.Errorf("file holds %q", got)
	}
	if got := trace.String(); got != sessionTrace {
		t.Errorf("trace:\n%swant\n%s", got, sessionTrace)
	}
	if got, want := f.Count(), strings.Count(sessionTrace, "\n"); got != want {
		t.Errorf("%d operations, want %d", got, want)
	}

	trace = &Trace{Root: "/t"}
	session(NewFaults(newSession(t), func(op Op) Action { trace.Record(op); return Pass }))
	if got := trace.String(); !strings.Contains(got, "\nwrite a\n") {
		t.Errorf("sizes were not left out:\n%s", got)
	}
}

// effect says whether an operation of session happened.
func effect(t *testing.T, m *Mem, kind string) bool {
	stat := func(name string) fs.FileInfo {
		fi, err := m.Stat(name)
		if err != nil {
			return nil
		}
		return fi
	}
	content := func(name string) string { return found(t, m, name) }
	switch kind {
	case "mkdir":
		return stat("/t/d") != nil
	case "create":
		return stat("/t/c") != nil
	case "lock":
		return false // seen below
	case "reserve":
		return m.Used() > 0
	case "write":
		return strings.HasPrefix(content("/t/c"), "01")
	case "writeat":
		return strings.Contains(content("/t/c"), "abc")
	case "truncate":
		return len(content("/t/c")) == 9
	case "sync":
		return content("/t/c") == found(t, m.Crash(nil), "/t/c")
	case "chmod":
		return stat("/t/c").Mode().Perm() == 0o400
	case "link":
		return stat("/t/c") != nil
	case "rename":
		return stat("/t/c") != nil
	case "remove":
		return stat("/t/a") == nil
	case "syncdir":
		after := m.Crash(nil)
		_, err := after.ReadDir("/t")
		return err == nil && found(t, after, "/t/c") != "not there"
	}
	return true
}

func TestFaultHappensBeforeOrAfterTheOperation(t *testing.T) {
	cause := errors.New("cause")
	for line := range strings.Lines(sessionTrace) {
		kind := strings.Fields(line)[0]
		for name, action := range map[string]Action{"before": FailBefore(cause), "after": FailAfter(cause)} {
			t.Run(kind+" "+name, func(t *testing.T) {
				m := newSession(t)
				ok(t, m.SyncDir("/"))
				errs := session(NewFaults(m, func(op Op) Action {
					if op.Kind == kind {
						return action
					}
					return Pass
				}))
				if !errors.Is(errs[kind], cause) {
					t.Fatalf("got %v, want the cause", errs[kind])
				}
				var (
					pathErr *fs.PathError
					linkErr *os.LinkError
				)
				if !errors.As(errs[kind], &pathErr) && !errors.As(errs[kind], &linkErr) {
					t.Errorf("%T is not what a file system returns", errs[kind])
				}
				switch kind {
				case "lock", "close", "reserve":
					return // leave nothing behind once the file is closed
				case "create":
					if name == "after" {
						if got := found(t, m, "/t/c"); got != "" {
							t.Errorf("file: %q", got)
						}
						return
					}
				}
				if got, want := effect(t, m, kind), name == "after"; got != want {
					t.Errorf("it happened: %v, want %v", got, want)
				}
			})
		}
	}
}

func TestFaultsOfLockReserveAndClose(t *testing.T) {
	for _, kind := range []string{"lock", "reserve", "close"} {
		for _, after := range []bool{false, true} {
			m := newSession(t)
			action := FailBefore(syscall.EIO)
			if after {
				action = FailAfter(syscall.EIO)
			}
			f := NewFaults(m, func(op Op) Action {
				if op.Kind == kind {
					return action
				}
				return Pass
			})
			a, b := create(t, f, "/t/a"), create(t, m, "/t/a")
			lockErr := f.Lock(a)
			switch kind {
			case "lock":
				if err := m.Lock(b); errors.Is(err, durable.ErrLocked) != after || !errors.Is(lockErr, syscall.EIO) {
					t.Errorf("lock, after %v: %v, then %v", after, lockErr, err)
				}
			case "reserve":
				if err := a.Reserve(1); !errors.Is(err, syscall.EIO) || (m.Used() > 0) != after {
					t.Errorf("reserve, after %v: %v, %d bytes", after, err, m.Used())
				}
			case "close":
				if err := a.Close(); !errors.Is(err, syscall.EIO) {
					t.Errorf("close: %v", err)
				}
				ok(t, m.Lock(b)) // close(2) closes whatever it returns
			}
		}
	}
}

func TestShortWrite(t *testing.T) {
	m := newSession(t)
	f := NewFaults(m, func(op Op) Action {
		if op.Kind == "write" {
			return ShortWrite(3, syscall.ENOSPC)
		}
		return Pass
	})
	n, err := create(t, f, "/t/a").Write([]byte("0123456789"))
	if n != 3 || !errors.Is(err, syscall.ENOSPC) || found(t, m, "/t/a") != "012" {
		t.Errorf("%d, %v: the file holds %q", n, err, found(t, m, "/t/a"))
	}
}

// EachOp and EachCrash are judged by what they find in writers with a known
// flaw: each has to be caught, and the right one not.
func TestEachFindsWhatIsWrong(t *testing.T) {
	var outcome map[string]bool
	see := func(r *Run, t *testing.T) { outcome[found(t, r.Restart(), "/a")] = true }
	scenario := func(write func(fsys durable.FS) error) func(*testing.T, *Run) {
		return func(t *testing.T, r *Run) {
			ok(t, durable.WriteFile(r.FS, "/a", []byte("old"), 0o600))
			r.Inject(func() { write(r.FS) })
			see(r, t)
		}
	}
	in := func(fsys durable.FS) error {
		return durable.CreateFile(fsys, "/a", []byte("new"), 0o600)
	}
	unsynced := func(fsys durable.FS) error {
		f, err := fsys.OpenFile("/tmp", os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write([]byte("new"))
		return errors.Join(err, f.Close(), fsys.Rename("/tmp", "/a"), fsys.SyncDir("/"))
	}
	right := func(fsys durable.FS) error { return durable.WriteFile(fsys, "/a", []byte("new"), 0o600) }
	for _, test := range []struct {
		name  string
		write func(durable.FS) error
		each  func(*testing.T, func(*testing.T, *Run))
		want  []string
		never []string
	}{
		{"in place, fault", in, EachOp, []string{"old", "new", "", "n"}, nil},
		{"in place, crash", in, eachCrash, []string{"old", "new", ""}, nil},
		{"renamed unsynced, crash", unsynced, eachCrash, []string{"old", "new", ""}, nil},
		{"right, fault", right, EachOp, []string{"old", "new"}, []string{"", "n"}},
		{"right, crash", right, eachCrash, []string{"old", "new"}, []string{"", "n"}},
	} {
		outcome = map[string]bool{}
		t.Run(test.name, func(t *testing.T) { test.each(t, scenario(test.write)) })
		for _, s := range test.want {
			if !outcome[s] {
				t.Errorf("%s: no round leaves %q: %v", test.name, s, outcome)
			}
		}
		for _, s := range test.never {
			if outcome[s] {
				t.Errorf("%s: a round leaves %q", test.name, s)
			}
		}
	}
}

func eachCrash(t *testing.T, run func(*testing.T, *Run)) { EachCrash(t, 20, run) }

func TestNothingWorksAfterTheCrash(t *testing.T) {
	EachCrash(t, 1, func(t *testing.T, r *Run) {
		ok(t, durable.WriteFile(r.FS, "/a", []byte("old"), 0o600))
		r.Inject(func() { durable.WriteFile(r.FS, "/a", []byte("new"), 0o600) })
		if !r.Fired() {
			return
		}
		if _, err := r.FS.Stat("/a"); !errors.Is(err, ErrCrashed) {
			t.Errorf("stat: %v", err)
		}
		if err := durable.WriteFile(r.FS, "/a", []byte("late"), 0o600); !errors.Is(err, ErrCrashed) {
			t.Errorf("write: %v", err)
		}
	})
}
