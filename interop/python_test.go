package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPythonRecomputesTheRoot from the lines alone, in order, with nothing of
// ours: testdata/root.py.
func TestPythonRecomputesTheRoot(t *testing.T) {
	for _, command := range []string{"python3", "zstd"} {
		if _, err := exec.LookPath(command); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	run := func(c trail) (string, error) {
		out, err := exec.CommandContext(bounded(t), "python3", "testdata/root.py", c.log).CombinedOutput()
		return string(out), err
	}
	out, err := run(intact)
	root := strings.Split(string(intact.checkpoint(t)), "\n")[2]
	if want := fmt.Sprintf("%s: %d lines, root %s\n", intact.origin, intact.size, root); err != nil || out != want {
		t.Fatalf("%v, got %q, want %q", err, out, want)
	}

	half := func(b []byte) int { return len(b) / 2 }
	for _, test := range []struct {
		name string
		do   func(t *testing.T, c trail)
	}{
		{"a byte of a sealed line changed", func(t *testing.T, c trail) {
			resealed(t, c.segments(t)[1], func(b []byte) []byte { return flip(half(b))(b) })
		}},
		{"two sealed segments exchanged", func(t *testing.T, c trail) {
			s := c.segments(t)
			if err := os.Rename(s[0], s[0]+".tmp"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(s[1], s[0]); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(s[0]+".tmp", s[1]); err != nil {
				t.Fatal(err)
			}
		}},
		{"a sealed segment missing", func(t *testing.T, c trail) {
			if err := os.Remove(c.segments(t)[2]); err != nil {
				t.Fatal(err)
			}
		}},
		{"a byte of the open segment changed", func(t *testing.T, c trail) {
			rewrite(t, c.log, func(b []byte) []byte { return flip(half(b))(b) })
		}},
		{"a line removed", func(t *testing.T, c trail) {
			rewrite(t, c.log, func(b []byte) []byte { return b[bytes.IndexByte(b, '\n')+1:] })
		}},
		{"a line inserted", func(t *testing.T, c trail) {
			rewrite(t, c.log, func(b []byte) []byte { return append(bytes.Clone(b[:bytes.IndexByte(b, '\n')+1]), b...) })
		}},
		{"two lines swapped", func(t *testing.T, c trail) {
			rewrite(t, c.log, func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				lines[3], lines[4] = lines[4], lines[3]
				return bytes.Join(lines, nil)
			})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := intact.copy(t)
			test.do(t, c)
			if out, err := run(c); err == nil {
				t.Errorf("the damaged trail is accepted: %s", out)
			}
		})
	}
}
