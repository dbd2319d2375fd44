package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// advised finds the init commands in what a command said, as it says them.
var advised = regexp.MustCompile(`kaizen-audit (init(?: --[a-z-]+(?: '[^']*'| [^ ';-][^ ;]*)?)+)`)

// words splits a command line as a shell does, as far as single quotes.
func words(line string) []string {
	var all []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		var word string
		if strings.HasPrefix(line, "'") {
			word, line, _ = strings.Cut(line[1:], "'")
		} else {
			word, line, _ = strings.Cut(line, " ")
		}
		all = append(all, word)
	}
	return all
}

// Whatever is lost of a trail, what each command then says leads to a trail
// that records again, in two steps at most and never twice through the same
// one, and nothing that was left is gone.
func TestAdviceLeadsOut(t *testing.T) {
	lose := func(names ...string) func(t *testing.T, log, dir string) {
		return func(t *testing.T, log, dir string) {
			for _, name := range names {
				name = strings.NewReplacer("LOG", log, "DIR", dir).Replace(name)
				if _, err := os.Stat(name); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write := func(name, text string) func(t *testing.T, log, dir string) {
		return func(t *testing.T, log, dir string) {
			if err := os.WriteFile(strings.NewReplacer("LOG", log, "DIR", dir).Replace(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	states := []struct {
		name string
		do   func(t *testing.T, log, dir string)
		keep string // what of the old log must still be there
	}{
		{"the directory is lost", lose("DIR"), oneEvent},
		{"the log is lost", lose("LOG"), ""},
		{"trail.json is lost", lose("DIR/trail.json"), oneEvent},
		{"trail.json is broken", write("DIR/trail.json", "{"), oneEvent},
		{"the checkpoint is lost", lose("DIR/checkpoint"), oneEvent},
		{"the checkpoint is broken", write("DIR/checkpoint", "x"), oneEvent},
		{"trail.json and the checkpoint are lost", lose("DIR/trail.json", "DIR/checkpoint"), oneEvent},
		{"trail.json and the log are lost", lose("DIR/trail.json", "LOG"), ""},
		{"the keys are lost", lose("DIR/keys"), oneEvent},
		{"the lines are other ones", write("LOG", "{}\n"), "{}\n"},
		{"all is lost", lose("LOG", "DIR"), ""},
	}
	for _, pinned := range []bool{true, false} {
		for _, first := range []string{"record", "init", "query", "info", "rotate", "verify", "init --successor-of"} {
			for _, state := range states {
				t.Run(fmt.Sprintf("%s, %s, pinned %v", state.name, first, pinned), func(t *testing.T) {
					pins := t.TempDir()
					t.Setenv("KAIZEN_AUDIT_STATE", pins)
					folder := filepath.Join(t.TempDir(), "a b") // a path that has to be quoted
					if err := os.Mkdir(folder, 0o700); err != nil {
						t.Fatal(err)
					}
					log := filepath.Join(folder, "audit.jsonl")
					do := func(args ...string) (int, string) {
						var stderr bytes.Buffer
						code := Main(context.Background(), args, strings.NewReader(oneEvent), new(bytes.Buffer), &stderr)
						return code, stderr.String()
					}
					if code, said := do("record", "--log", log); code != 0 {
						t.Fatal(said)
					}
					state.do(t, log, filepath.Join(folder, "audit.trail"))
					if !pinned {
						t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
					}
					args := append(words(first), "--log", log)
					if strings.HasSuffix(first, "successor-of") {
						args = slices.Insert(args, 2, log)
					}
					var done [][]string
					for {
						done = append(done, args)
						code, said := do(args...)
						if (code == exitDone || code == exitPartly) && slices.Contains([]string{"query", "info", "verify"}, args[0]) {
							return // what is left can be read, and what is missing is named
						}
						if code == 0 {
							break
						}
						found := advised.FindAllStringSubmatch(said, -1)
						if len(found) != 1 {
							t.Fatalf("%v: %d pieces of advice, want 1:\n%s", done, len(found), said)
						}
						args = words(found[0][1])
						if slices.ContainsFunc(done, func(d []string) bool { return slices.Equal(d, args) }) || len(done) > 2 {
							t.Fatalf("%v, and now %v:\n%s", done, args, said)
						}
					}
					for _, args := range [][]string{{"record", "--log", log}, {"verify", "--log", log}} {
						if code, said := do(args...); code != 0 {
							t.Errorf("after %v: %v: %s", done, args, said)
						}
					}
					want := state.keep
					if want == oneEvent {
						want = `"agent_id":"a"`
					}
					kept := false
					files, _ := filepath.Glob(filepath.Join(folder, "audit.*.jsonl"))
					for _, name := range append(files, log) {
						data, err := os.ReadFile(name)
						if err != nil {
							t.Error(err)
						}
						kept = kept || (name != log || len(done) == 1) && strings.Contains(string(data), want)
					}
					if want != "" && !kept {
						t.Errorf("after %v the old lines are gone; there are %v", done, files)
					}
				})
			}
		}
	}
}
