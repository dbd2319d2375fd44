package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const oneEvent = `{"event_type":"TOOL_USE","agent_id":"a","action":"x"}` + "\n"

// run starts the program with a pipe for its stdin.
func run(t *testing.T, ctx context.Context, args ...string) (stdin *io.PipeWriter, stdout *bufio.Reader, stderr *bytes.Buffer, exit chan int) {
	t.Helper()
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	stderr, exit = new(bytes.Buffer), make(chan int, 1)
	go func() {
		code := Main(ctx, args, inR, outW, stderr)
		outW.Close()
		exit <- code
	}()
	t.Cleanup(func() { inW.Close() })
	return inW, bufio.NewReader(outR), stderr, exit
}

func within(t *testing.T, what string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: nothing for 20 s", what)
	}
}

// TestSlowProducerGetsItsReceiptAtOnce: one event at a time, each receipt
// before the next event is written.
func TestSlowProducerGetsItsReceiptAtOnce(t *testing.T) {
	in, out, stderr, exit := run(t, t.Context(), "record", "--log", filepath.Join(t.TempDir(), "a.jsonl"))
	for i := range 5 {
		within(t, "receipt", func() error {
			if _, err := io.WriteString(in, oneEvent); err != nil {
				return err
			}
			line, err := out.ReadString('\n')
			if err == nil && !strings.HasPrefix(line, fmt.Sprintf(`{"index":%d,`, i+1)) {
				err = fmt.Errorf("receipt %q", line)
			}
			return err
		})
	}
	in.Close()
	within(t, "end", func() error {
		if code := <-exit; code != exitDone {
			return fmt.Errorf("exit code %d: %s", code, stderr)
		}
		return nil
	})
}

// TestSignalEndsRecordCleanly: what was accepted has its receipt, the trail is
// closed, and half a line is nothing.
func TestSignalEndsRecordCleanly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log := filepath.Join(t.TempDir(), "a.jsonl")
	in, out, stderr, exit := run(t, ctx, "record", "--log", log)
	within(t, "receipts", func() error {
		if _, err := io.WriteString(in, oneEvent+oneEvent+`{"event_type":"TOOL`); err != nil {
			return err
		}
		for range 2 {
			if _, err := out.ReadString('\n'); err != nil {
				return err
			}
		}
		return nil
	})
	cancel()
	within(t, "end", func() error {
		if code := <-exit; code != exitDone {
			return fmt.Errorf("exit code %d: %s", code, stderr)
		}
		return nil
	})
	if lock, err := os.ReadFile(strings.TrimSuffix(log, ".jsonl") + ".trail/lock"); err != nil || len(lock) != 0 {
		t.Errorf("the trail was not closed cleanly: lock %q, %v", lock, err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte(`"TOOL_USE"`)); n != 2 {
		t.Errorf("%d events in the log, want 2", n)
	}
}

func TestReceiptsThatNobodyTakesAreAnError(t *testing.T) {
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var stderr bytes.Buffer
	code := Main(t.Context(), []string{"record", "--log", filepath.Join(t.TempDir(), "a.jsonl")}, strings.NewReader(oneEvent), w, &stderr)
	if code != exitIO || !strings.Contains(stderr.String(), "receipts: write results: ") {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
}

func TestBrokenInputIsAnErrorAfterItsReceipts(t *testing.T) {
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	in := io.MultiReader(strings.NewReader(oneEvent), iotest.ErrReader(errors.New("disk gone")))
	var stdout, stderr bytes.Buffer
	code := Main(t.Context(), []string{"record", "--log", filepath.Join(t.TempDir(), "a.jsonl")}, in, &stdout, &stderr)
	if code != exitIO || strings.Count(stdout.String(), "\n") != 1 || !strings.Contains(stderr.String(), "record: read events: disk gone") {
		t.Errorf("exit code %d\n%s\n%s", code, &stdout, &stderr)
	}
}

// allLines is what readLines gives of an input.
func allLines(t *testing.T, in io.Reader, limit int) (lines []inputLine) {
	t.Helper()
	to := make(chan inputLines, 1)
	go readLines(t.Context(), in, limit, to)
	for m := range to {
		lines = append(lines, m.lines...)
		if m.err != nil {
			t.Fatal(m.err)
		}
	}
	return lines
}

// splitLines is the same the simple way.
func splitLines(s string, limit int) (lines []inputLine) {
	number := int64(0)
	for text := range strings.Lines(s) {
		number++
		text = strings.TrimSuffix(text, "\n")
		l := inputLine{number: number, text: []byte(text)}
		if len(text) > limit {
			l = inputLine{number: number, bytes: len(text)}
		} else if number == 1 {
			l.text = []byte(strings.TrimPrefix(text, "\ufeff"))
		}
		lines = append(lines, l)
	}
	return lines
}

func sameLines(a, b []inputLine) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].number != b[i].number || a[i].bytes != b[i].bytes || !bytes.Equal(a[i].text, b[i].text) {
			return false
		}
	}
	return true
}

// FuzzInputLines: however the input arrives, its lines are the same, and what
// is longer than the limit is counted to the byte.
func FuzzInputLines(f *testing.F) {
	f.Add("a\nbb\n\nccc", 2)
	f.Add("\ufeffa\n\ufeffb\n", 8)
	f.Add(strings.Repeat("x", readChunk+5)+"\ny\n", 100)
	f.Add(strings.Repeat("x", 3*readChunk)+"\ny", 2*readChunk)
	f.Add(strings.Repeat(strings.Repeat("y", 1000)+"\n", 200), 1000)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(1, limit)
		want := splitLines(s, limit)
		for name, in := range map[string]io.Reader{
			"at once": strings.NewReader(s), "in halves": iotest.HalfReader(strings.NewReader(s)),
			"with the end": iotest.DataErrReader(strings.NewReader(s)),
		} {
			if got := allLines(t, in, limit); !sameLines(got, want) {
				t.Fatalf("%s: %d lines, want %d", name, len(got), len(want))
			}
		}
		if len(s) < 1000 {
			if got := allLines(t, iotest.OneByteReader(strings.NewReader(s)), limit); !sameLines(got, want) {
				t.Fatalf("byte by byte: %d lines, want %d", len(got), len(want))
			}
		}
	})
}
