// Encrypt measures what sealing costs, beside the same entries in clear, and prints
// each figure beside its bar:
//
//	go run ./encrypt [--json FILE] [--dir DIR] [--quick]
//
// The bars are those of the product: a durable append of an encrypted trail takes at
// most 1.3 times a plain one's in the same run; a line that is sealed as a whole at
// most its plain bytes; with n sealed fields at most 110 n bytes more; a sealed
// segment at most three times a plain one, both as they lie on disk. The run takes
// about a minute.
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/kms"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/peer"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

func main() {
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "measure below this directory; it says which disk")
	quick := flag.Bool("quick", false, "a few entries each: shows that everything runs, measures no time")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *dir, *jsonFile, *quick); err != nil {
		fmt.Fprintln(os.Stderr, "bench encrypt:", err)
		os.Exit(1)
	}
}

// figure is one measured value and the most that it may be.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Bar   float64 `json:"bar"`
	Unit  string  `json:"unit"`
}

type results struct {
	Machine measure.Machine `json:"machine"`
	Seconds float64         `json:"seconds"`
	Rows    []measure.Row   `json:"rows"`
	Figures []figure        `json:"figures"`
}

func run(out io.Writer, dir, jsonFile string, quick bool) error {
	start := time.Now()
	dir, err := os.MkdirTemp(dir, "bench-encrypt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	res := results{Machine: measure.ThisMachine()}
	p := workload.New(1)
	for _, of := range []struct {
		measure.Comparison
		steps int
	}{
		// The first is of users whom the trail knows, the second of runs of 18 steps
		// of one user each, what 403 runs of real agents had on average; who is new
		// takes a sync more, and the last comparison is of nothing else.
		{measure.Comparison{Name: "durable, 1 writer, known users", Writers: 1, Baseline: "plain", Rounds: 8, Slice: time.Second, WarmUp: 100}, 1 << 20},
		{measure.Comparison{Name: "durable, 1 writer, runs of 18 steps", Writers: 1, Baseline: "plain", ByRate: true, Rounds: 6, Slice: time.Second, WarmUp: 100}, 18},
		{measure.Comparison{Name: "durable, 64 writers, runs of 18 steps", Writers: 64, Baseline: "plain", ByRate: true, Rounds: 6, Slice: time.Second, WarmUp: 100}, 18},
		{measure.Comparison{Name: "durable, 1 writer, each entry a new user's", Writers: 1, Baseline: "plain", ByRate: true, Rounds: 4, Slice: time.Second, WarmUp: 100}, 1},
	} {
		c := of.Comparison
		c.Contestants = []measure.Contestant{peer.Trail("plain", p, peer.Plain, of.steps), peer.Trail("encrypted", p, peer.Encrypted, of.steps)}
		if quick {
			c.Rounds, c.MaxEntries, c.WarmUp = 1, 128, 1
		}
		rows, err := measure.Run(c, dir)
		if err != nil {
			return err
		}
		res.Rows = append(res.Rows, rows...)
		ratio := rows[len(rows)-1].Ratio
		if c.ByRate {
			ratio = 1 / ratio
		}
		of := "p95"
		if c.ByRate {
			of = "time an entry"
		}
		res.Figures = append(res.Figures, figure{c.Name + ": " + of + " encrypted through plain", ratio, 1.3, "x"})
	}
	entries := p.Len()
	if quick {
		entries = 512
	}
	short := make([]audit.Event, entries)
	for i := range short {
		short[i] = p.Event(i).Audit()
	}
	steps, err := runs()
	if err != nil {
		return err
	}
	for _, of := range []struct {
		name   string
		events []audit.Event
	}{{"short tool calls", short}, {"agents' runs", steps}} {
		figures, err := sizes(dir, of.name, of.events)
		if err != nil {
			return err
		}
		res.Figures = append(res.Figures, figures...)
	}
	res.Seconds = time.Since(start).Seconds()
	if err := measure.WriteTable(out, res.Rows); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s; %.0f s.\n\n", res.Machine, res.Seconds)
	for _, f := range res.Figures {
		verdict := "kept"
		if f.Value > f.Bar {
			verdict = "MISSED"
		}
		fmt.Fprintf(out, "%-72s %9.2f %-6s bar %7.2f  %s\n", f.Name, f.Value, f.Unit, f.Bar, verdict)
	}
	if jsonFile == "" {
		return nil
	}
	text, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(jsonFile, append(text, '\n'), 0o644)
}

// stored is what a trail of the first n events of the pool takes.
type stored struct {
	lines   int64 // bytes of the lines of events
	segment int64 // bytes of the sealed segment
	fields  int64 // sealed fields of those lines
	texts   [][]byte
}

// runs are steps of real agents (testdata/runs/SOURCE.md, or a larger file of the same
// form that $KAIZEN_AUDIT_RUNS names), as a hook records them.
func runs() ([]audit.Event, error) {
	name := os.Getenv("KAIZEN_AUDIT_RUNS")
	for _, up := range []string{"..", filepath.Join("..", "..")} {
		if name == "" {
			if at := filepath.Join(up, "testdata", "runs", "runs.jsonl.gz"); exists(at) {
				name = at
			}
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var events []audit.Event
	for in := json.NewDecoder(z); ; {
		var s struct {
			Source string          `json:"source"`
			RunID  string          `json:"run_id"`
			Agent  string          `json:"agent"`
			UserID string          `json:"user_id"`
			Action string          `json:"action"`
			Kind   string          `json:"kind"`
			Input  json.RawMessage `json:"input"`
			Output json.RawMessage `json:"output"`
		}
		err := in.Decode(&s)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		object := func(raw json.RawMessage) audit.Object {
			if len(raw) == 0 || string(raw) == "null" {
				return audit.Object{}
			}
			return audit.Raw(raw)
		}
		ev := audit.Event{EventType: audit.ToolUse, AgentID: s.Agent, TraceID: s.RunID, Action: cmp.Or(s.Action, s.Kind),
			Inputs: object(s.Input), Outputs: object(s.Output), Metadata: audit.Of(map[string]any{"service_name": s.Source, "user_id": cmp.Or(s.UserID, s.RunID)})}
		if s.Kind == "llm_call" {
			ev.EventType = audit.LLMCall
		}
		events = append(events, ev)
	}
	return events, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// sizes compares a plain trail with one whose fields are sealed and one that is
// encrypted, of the very same events.
func sizes(dir, of string, events []audit.Event) ([]figure, error) {
	var got [3]stored
	for i, o := range []struct {
		name, profile string
		encrypt       bool
	}{{"plain", "plain", false}, {"fields", "gdpr", false}, {"encrypted", "plain", true}} {
		var err error
		if got[i], err = store(filepath.Join(dir, o.name+" "+of), events, o.profile, o.encrypt); err != nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	plain, fields, encrypted := got[0], got[1], got[2]
	whole, err := wholeLines(plain.texts)
	if err != nil {
		return nil, err
	}
	return []figure{
		{of + ": lines sealed as a whole through plain lines, bytes", float64(whole) / float64(plain.lines), 1, "x"},
		{of + ": sealed fields: bytes more a field", float64(fields.lines-plain.lines) / float64(fields.fields), 110, "bytes"},
		{of + ": sealed fields in sealed lines: bytes more a field", float64(encrypted.lines-plain.lines) / float64(fields.fields), 110, "bytes"},
		{of + ": sealed segment, encrypted through plain zstd, bytes", float64(encrypted.segment) / float64(plain.segment), 3, "x"},
	}, nil
}

func store(dir string, events []audit.Event, profile string, encrypt bool) (s stored, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return s, err
	}
	kek, err := newKEK()
	if err != nil {
		return s, err
	}
	path := filepath.Join(dir, "log.jsonl")
	o := audit.Options{Durability: audit.Written, StateDir: filepath.Join(dir, "known"), Encrypt: encrypt}
	if profile != "plain" || encrypt {
		o.KEK = kek
	}
	if _, err := audit.Init(path, &audit.InitOptions{Options: o, Profile: profile}); err != nil {
		return s, err
	}
	t, err := audit.Open(path, &o)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	ctx := context.Background()
	before, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	for _, ev := range events {
		if _, err := t.Record(ctx, ev); err != nil {
			return s, err
		}
	}
	if _, err := t.Verify(ctx, nil); err != nil { // the log has all that is acknowledged then
		return s, err
	}
	after, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	for line := range bytes.Lines(bytes.TrimRight(after[len(before):], "\x00")) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if seal.IsLine(line) || !bytes.Contains(line, []byte(`"agent_id":"kaizen-audit"`)) {
			s.lines += int64(len(line)) + 1
			s.texts = append(s.texts, line)
			s.fields += int64(fieldsOf(line))
		}
	}
	if len(s.texts) < len(events) {
		return s, fmt.Errorf("%d lines of %d events", len(s.texts), len(events))
	}
	segment, err := t.Rotate(ctx)
	s.segment = segment.Stored
	return s, err
}

// fieldsOf is how many fields of a line are sealed.
func fieldsOf(line []byte) int {
	e, err := entry.Parse(line)
	if err != nil {
		return 0
	}
	v, _ := e.Policy.Get("sealed")
	var list []string
	if json.Unmarshal(v.JSON(), &list) != nil {
		return 0
	}
	return len(list)
}

// wholeLines are the bytes of lines, each sealed as a whole and nothing in it.
func wholeLines(lines [][]byte) (total int64, err error) {
	key, salt := make([]byte, seal.KeySize), make([]byte, seal.SaltSize)
	_, _ = rand.Read(key) // never fails
	for _, line := range lines {
		_, _ = rand.Read(salt)
		sealed, err := seal.SealLine("example.com/log", "AAAAAAAAAAAA", key, salt, line)
		if err != nil {
			return 0, err
		}
		total += int64(len(sealed)) + 1
	}
	return total, nil
}

func newKEK() (kms.KEK, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return kms.NewLocal(key)
}
