package peer

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	bolt "go.etcd.io/bbolt"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// TestEveryPeerKeepsEveryEntry: a peer that loses or mixes up entries would
// win unfairly.
func TestEveryPeerKeepsEveryEntry(t *testing.T) {
	p := workload.New(1)
	const entries = 50
	for _, test := range []struct {
		contestant measure.Contestant
		writers    int
		read       func(t *testing.T, dir string) [][]byte
	}{
		{Raw(p, Durable), 1, readLines},
		{Raw(p, Written), 1, readLines},
		{GroupCommit(p), 8, readLines},
		{JSON(p, Durable), 8, readLines},
		{JSON(p, Written), 1, readLines},
		{Zerolog(p, Durable), 1, readLines},
		{Zerolog(p, Written), 1, readLines},
		{Slog(p, Written), 1, readLines},
		{SQLite(p), 1, readSQLite},
		{SQLiteBatched(p), 8, readSQLite},
		{Pebble(p), 8, readPebble},
		{Bolt(p), 1, readBolt},
		{BoltBatched(p, 8), 8, readBolt},
		{Tessera(p), 1, readTessera},
	} {
		t.Run(test.contestant.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r, err := test.contestant.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			recorded := make(chan error, entries)
			for w := range test.writers {
				go func() {
					for n := w; n < entries; n += test.writers {
						recorded <- r.Record(n)
					}
				}()
			}
			for range entries {
				if err := <-recorded; err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, text := range test.read(t, dir) {
				var e workload.Event
				if err := json.Unmarshal(text, &e); err != nil {
					t.Fatalf("%v in %q", err, text)
				}
				seen[e.EventID] = true
			}
			for n := range entries {
				if id := p.Event(n).EventID; !seen[id] {
					t.Errorf("entry %d, event %s, is not there", n, id)
				}
			}
			if len(seen) != entries {
				t.Errorf("%d entries are there, recorded were %d", len(seen), entries)
			}
		})
	}
}

func readLines(t *testing.T, dir string) [][]byte {
	b, err := os.ReadFile(filepath.Join(dir, "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

func readSQLite(t *testing.T, dir string) (out [][]byte) {
	db, err := sql.Open("sqlite", filepath.Join(dir, "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT entry FROM entries`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		out = append(out, []byte(s))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func readPebble(t *testing.T, dir string) (out [][]byte) {
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		out = append(out, bytes.Clone(it.Value()))
	}
	return out
}

func readBolt(t *testing.T, dir string) (out [][]byte) {
	db, err := bolt.Open(filepath.Join(dir, "log.db"), 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(_, v []byte) error {
			out = append(out, bytes.Clone(v))
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// readTessera reads the one partial bundle that 50 entries make: each is a
// big-endian uint16 length and the entry.
func readTessera(t *testing.T, dir string) (out [][]byte) {
	b, err := os.ReadFile(filepath.Join(dir, "tile", "entries", "000.p", "50"))
	if err != nil {
		t.Fatal(err)
	}
	for len(b) >= 2 {
		n := int(b[0])<<8 | int(b[1])
		out = append(out, b[2:2+n])
		b = b[2+n:]
	}
	return out
}

// TestLinesAreOfTheSizeStated: about 450 bytes.
func TestLinesAreOfTheSizeStated(t *testing.T) {
	p := workload.New(1)
	total := 0
	for n := range 1000 {
		line := p.Line(n)
		total += len(line)
		if !json.Valid(line) || strings.Count(string(line), "\n") != 1 {
			t.Fatalf("line %d is not one line of JSON: %q", n, line)
		}
	}
	if mean := total / 1000; mean < 430 || mean > 480 {
		t.Errorf("lines have %d bytes on average", mean)
	}
}
