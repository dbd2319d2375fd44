package durabletest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	. "github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

// errKind says what a caller can tell from an error: the type around it and
// the cause.
func errKind(err error) string {
	var (
		pathErr *fs.PathError
		linkErr *os.LinkError
		errno   syscall.Errno
		kind    string
	)
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &pathErr):
		kind = "path "
	case errors.As(err, &linkErr):
		kind = "link "
	}
	switch {
	case err == io.EOF:
		return "EOF"
	case errors.Is(err, durable.ErrLocked):
		return kind + "locked"
	case errors.Is(err, fs.ErrClosed), errors.Is(err, syscall.EBADF):
		// fdatasync(2) of a closed file knows only a bad descriptor.
		return kind + "bad file"
	case errors.As(err, &errno):
		return kind + errno.Error()
	}
	return kind + "other"
}

// machine does the same on two file systems and compares what they answer.
type machine struct {
	fsys  [2]durable.FS
	root  [2]string
	files [][2]durable.File
}

func (m *machine) both(t *rapid.T, what string, do func(i int) (any, error)) {
	var got [2]string
	for i := range m.fsys {
		v, err := do(i)
		got[i] = fmt.Sprintf("%v, %s", v, errKind(err))
	}
	if got[0] != got[1] {
		t.Fatalf("%s: OS %s; Mem %s", what, got[0], got[1])
	}
}

var names = []string{"", "a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "e/a", "no/where", "a/under"}

func drawName(t *rapid.T, label string) string { return rapid.SampledFrom(names).Draw(t, label) }

func (m *machine) path(i int, name string) string { return filepath.Join(m.root[i], name) }

func (m *machine) file(t *rapid.T) [2]durable.File {
	if len(m.files) == 0 {
		t.Skip("no file")
	}
	return m.files[rapid.IntRange(0, len(m.files)-1).Draw(t, "file")]
}

// size draws offsets and sizes around the limits of pages.
func size() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(-1, 20), rapid.Int64Range(4080, 4110), rapid.Int64Range(0, 20000))
}

func payload(t *rapid.T) []byte {
	n := rapid.OneOf(rapid.IntRange(0, 600), rapid.IntRange(4000, 9000)).Draw(t, "bytes")
	return bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(t, "byte"))}, n)
}

func (m *machine) open(t *rapid.T) {
	if len(m.files) > 5 {
		t.Skip("enough open files")
	}
	name := drawName(t, "name")
	flag := rapid.SampledFrom([]int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR}).Draw(t, "access")
	for _, f := range []int{os.O_CREATE, os.O_EXCL, os.O_APPEND, os.O_TRUNC} {
		if rapid.Bool().Draw(t, "flag") {
			flag |= f
		}
	}
	if flag&os.O_CREATE == 0 {
		flag &^= os.O_EXCL // open(2): undefined
	}
	if flag&accessModes == os.O_RDONLY {
		flag &^= os.O_TRUNC // open(2): unspecified
	}
	var files [2]durable.File
	m.both(t, "open", func(i int) (any, error) {
		f, err := m.fsys[i].OpenFile(m.path(i, name), flag, 0o600)
		files[i] = f
		return nil, err
	})
	if files[0] != nil {
		m.files = append(m.files, files)
	}
}

const accessModes = os.O_RDONLY | os.O_WRONLY | os.O_RDWR

func (m *machine) actions() map[string]func(*rapid.T) {
	twoNames := func(op func(fsys durable.FS, oldname, newname string) error) func(*rapid.T) {
		return func(t *rapid.T) {
			from, to := drawName(t, "old"), drawName(t, "new")
			if from == "" || to == "" {
				t.Skip("the root of the test is not the root of a file system")
			}
			m.both(t, "two names", func(i int) (any, error) {
				return nil, op(m.fsys[i], m.path(i, from), m.path(i, to))
			})
		}
	}
	oneName := func(op func(fsys durable.FS, name string) error) func(*rapid.T) {
		return func(t *rapid.T) {
			name := drawName(t, "name")
			if name == "" {
				t.Skip("as above")
			}
			m.both(t, "one name", func(i int) (any, error) { return nil, op(m.fsys[i], m.path(i, name)) })
		}
	}
	return map[string]func(*rapid.T){
		"open":   m.open,
		"open 2": m.open,
		"rename": twoNames(func(f durable.FS, a, b string) error { return f.Rename(a, b) }),
		"link":   twoNames(func(f durable.FS, a, b string) error { return f.Link(a, b) }),
		"remove": oneName(func(f durable.FS, a string) error { return f.Remove(a) }),
		"mkdir":  oneName(func(f durable.FS, a string) error { return f.Mkdir(a, 0o700) }),
		"chmod": func(t *rapid.T) {
			name := drawName(t, "name")
			perm := rapid.SampledFrom([]fs.FileMode{0o600, 0o640, 0o700, 0o755}).Draw(t, "perm") | 0o600
			m.both(t, "chmod", func(i int) (any, error) {
				p := perm
				if fi, err := m.fsys[i].Stat(m.path(i, name)); err == nil && fi.IsDir() {
					p |= 0o100
				}
				return nil, m.fsys[i].Chmod(m.path(i, name), p)
			})
		},
		"syncdir": func(t *rapid.T) {
			name := rapid.SampledFrom([]string{"", "d", "d/e", "no/where"}).Draw(t, "name")
			m.both(t, "syncdir", func(i int) (any, error) {
				if fi, err := m.fsys[i].Stat(m.path(i, name)); err == nil && !fi.IsDir() {
					return nil, nil // the caller's mistake
				}
				return nil, m.fsys[i].SyncDir(m.path(i, name))
			})
		},
		"readdir": func(t *rapid.T) {
			name := drawName(t, "name")
			m.both(t, "readdir", func(i int) (any, error) {
				entries, err := m.fsys[i].ReadDir(m.path(i, name))
				var all []string
				for _, e := range entries {
					all = append(all, fmt.Sprint(e.Name(), " ", e.IsDir()))
				}
				return all, err
			})
		},
		"read": func(t *rapid.T) {
			f, n := m.file(t), rapid.IntRange(0, 9000).Draw(t, "n")
			m.both(t, "read", func(i int) (any, error) {
				b := make([]byte, n)
				k, err := f[i].Read(b)
				return b[:k], err
			})
		},
		"readat": func(t *rapid.T) {
			f, n, off := m.file(t), rapid.IntRange(0, 9000).Draw(t, "n"), size().Draw(t, "off")
			m.both(t, "readat", func(i int) (any, error) {
				b := make([]byte, n)
				k, err := f[i].ReadAt(b, off)
				return b[:k], err
			})
		},
		"write": func(t *rapid.T) {
			f, b := m.file(t), payload(t)
			m.both(t, "write", func(i int) (any, error) { return sum(f[i].Write(b)) })
		},
		"writeat": func(t *rapid.T) {
			f, b, off := m.file(t), payload(t), size().Draw(t, "off")
			m.both(t, "writeat", func(i int) (any, error) { return sum(f[i].WriteAt(b, off)) })
		},
		"truncate": func(t *rapid.T) {
			f, n := m.file(t), size().Draw(t, "size")
			m.both(t, "truncate", func(i int) (any, error) { return nil, f[i].Truncate(n) })
		},
		"reserve": func(t *rapid.T) {
			f, n := m.file(t), size().Draw(t, "size")
			m.both(t, "reserve", func(i int) (any, error) {
				err := f[i].Reserve(n)
				if errors.Is(err, errors.ErrUnsupported) {
					t.Skip("not on this file system")
				}
				return nil, err
			})
		},
		"sync": func(t *rapid.T) {
			f := m.file(t)
			m.both(t, "sync", func(i int) (any, error) { return nil, f[i].Sync() })
		},
		"lock": func(t *rapid.T) {
			f := m.file(t)
			m.both(t, "lock", func(i int) (any, error) { return nil, m.fsys[i].Lock(f[i]) })
		},
		"stat file": func(t *rapid.T) {
			f := m.file(t)
			m.both(t, "stat", func(i int) (any, error) { return m.describe(f[i].Stat()) })
		},
		"close": func(t *rapid.T) {
			f := m.file(t)
			m.both(t, "close", func(i int) (any, error) { return nil, f[i].Close() })
			if rapid.Bool().Draw(t, "forget") { // else it is used after its close
				m.files = deleteFile(m.files, f)
			}
		},
		"": m.compare,
	}
}

// sum is for results of a type with an error.
func sum(n int, err error) (any, error) { return n, err }

func deleteFile(files [][2]durable.File, f [2]durable.File) [][2]durable.File {
	var kept [][2]durable.File
	for _, g := range files {
		if g != f {
			kept = append(kept, g)
		}
	}
	return kept
}

func (m *machine) describe(fi fs.FileInfo, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return fmt.Sprint("dir ", fi.Mode()), nil
	}
	return fmt.Sprint("file ", fi.Mode(), fi.Size()), nil
}

// compare looks at the whole tree: names, kinds, bits, sizes, contents, and
// which names are one file.
func (m *machine) compare(t *rapid.T) {
	m.both(t, "tree", func(i int) (any, error) { return tree(m.fsys[i], m.root[i]) })
}

func tree(fsys durable.FS, root string) (string, error) {
	var (
		out   strings.Builder
		infos []fs.FileInfo
		paths []string
		walk  func(rel string) error
	)
	walk = func(rel string) error {
		entries, err := fsys.ReadDir(filepath.Join(root, rel))
		if err != nil {
			return err
		}
		for _, e := range entries {
			rel := filepath.Join(rel, e.Name())
			fi, err := fsys.Stat(filepath.Join(root, rel))
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%s %v", rel, fi.Mode())
			if fi.IsDir() {
				out.WriteByte('\n')
				if err := walk(rel); err != nil {
					return err
				}
				continue
			}
			same := rel
			for i := range infos {
				if fsys.SameFile(infos[i], fi) {
					same = paths[i]
					break
				}
			}
			infos, paths = append(infos, fi), append(paths, rel)
			b, err := durable.ReadFile(fsys, filepath.Join(root, rel), 1<<20)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %d =%s %q\n", fi.Size(), same, b)
		}
		return nil
	}
	err := walk("")
	return out.String(), err
}

func TestMemAnswersAsTheOperatingSystem(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{fsys: [2]durable.FS{durable.OS, NewMem()}, root: [2]string{root, "/t"}}
		defer func() {
			for _, f := range m.files {
				f[0].Close()
				f[1].Close()
			}
			os.RemoveAll(root)
		}()
		for _, d := range []string{"", "d", "e"} {
			if d != "" {
				if err := os.Mkdir(m.path(0, d), 0o700); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Chmod(root, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := m.fsys[1].Mkdir(m.path(1, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(m.actions())
	})
}
