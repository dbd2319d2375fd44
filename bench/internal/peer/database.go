package peer

import (
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// marshal is event n as JSON, for the databases' values.
func marshal(p *workload.Pool, n int) ([]byte, error) {
	e := stamped(p, n)
	return json.Marshal(&e)
}

// sequence gives the next key: 8 bytes, big-endian, ascending as a log's are.
type sequence struct{ atomic.Uint64 }

func (s *sequence) next() []byte { return binary.BigEndian.AppendUint64(nil, s.Add(1)) }

const insert = `INSERT INTO entries (entry) VALUES (?)`

func openSQLite(dir string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "log.db")+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one writer: a second connection would only meet its lock
	if _, err := db.Exec(`CREATE TABLE entries (id INTEGER PRIMARY KEY, entry TEXT NOT NULL)`); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// SQLite is SQLite with a write-ahead log and synchronous=FULL, a transaction
// for each entry.
func SQLite(p *workload.Pool) measure.Contestant {
	return measure.Contestant{Name: "SQLite (WAL, FULL)", Open: func(dir string) (measure.Recorder, error) {
		db, err := openSQLite(dir)
		if err != nil {
			return nil, err
		}
		stmt, err := db.Prepare(insert)
		return &sqlite{db, stmt, p}, err
	}}
}

type sqlite struct {
	db   *sql.DB
	stmt *sql.Stmt
	pool *workload.Pool
}

func (r *sqlite) Record(n int) error {
	value, err := marshal(r.pool, n)
	if err != nil {
		return err
	}
	_, err = r.stmt.Exec(string(value))
	return err
}

func (r *sqlite) Close() error { return errors.Join(r.stmt.Close(), r.db.Close()) }

// SQLiteBatched is SQLite with one transaction for all writers that wait.
func SQLiteBatched(p *workload.Pool) measure.Contestant {
	return measure.Contestant{Name: "SQLite batched", Open: func(dir string) (measure.Recorder, error) {
		db, err := openSQLite(dir)
		if err != nil {
			return nil, err
		}
		r := &sqliteBatched{db: db, pool: p, inserts: make(chan pending, 1024)}
		r.committer.Go(r.commitAll)
		return r, nil
	}}
}

type sqliteBatched struct {
	db        *sql.DB
	pool      *workload.Pool
	inserts   chan pending
	committer sync.WaitGroup
}

type pending struct {
	value string
	done  chan error
}

func (r *sqliteBatched) Record(n int) error {
	value, err := marshal(r.pool, n)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	r.inserts <- pending{string(value), done}
	return <-done
}

// commitAll takes whatever waits, inserts it in one transaction and answers.
func (r *sqliteBatched) commitAll() {
	var batch []pending
	for first := range r.inserts {
		batch = append(batch[:0], first)
		for more := true; more; {
			select {
			case p, ok := <-r.inserts:
				if more = ok; ok {
					batch = append(batch, p)
				}
			default:
				more = false
			}
		}
		err := r.commit(batch)
		for _, p := range batch {
			p.done <- err
		}
	}
}

func (r *sqliteBatched) commit(batch []pending) error {
	tx, err := r.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	stmt, err := tx.Prepare(insert)
	if err != nil {
		return err
	}
	for _, p := range batch {
		if _, err := stmt.Exec(p.value); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (r *sqliteBatched) Close() error {
	close(r.inserts)
	r.committer.Wait()
	return r.db.Close()
}

// Pebble is CockroachDB's key-value store, synced; it commits in groups by
// itself.
func Pebble(p *workload.Pool) measure.Contestant {
	return measure.Contestant{Name: "pebble (Sync)", Open: func(dir string) (measure.Recorder, error) {
		db, err := pebble.Open(dir, &pebble.Options{Logger: silent{log.New(io.Discard, "", 0)}})
		return &pebbleStore{db: db, pool: p}, err
	}}
}

// silent drops pebble's notes; a fatal error still ends the program.
type silent struct{ *log.Logger }

func (s silent) Infof(string, ...any)  {}
func (s silent) Errorf(string, ...any) {}

type pebbleStore struct {
	db   *pebble.DB
	pool *workload.Pool
	keys sequence
}

func (r *pebbleStore) Record(n int) error {
	value, err := marshal(r.pool, n)
	if err != nil {
		return err
	}
	return r.db.Set(r.keys.next(), value, pebble.Sync)
}

func (r *pebbleStore) Close() error { return r.db.Close() }

var bucket = []byte("entries")

func openBolt(dir string) (*bolt.DB, error) {
	db, err := bolt.Open(filepath.Join(dir, "log.db"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return db, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(bucket)
		return err
	})
}

// Bolt is bbolt, a transaction for each entry.
func Bolt(p *workload.Pool) measure.Contestant {
	return measure.Contestant{Name: "bbolt", Open: func(dir string) (measure.Recorder, error) {
		db, err := openBolt(dir)
		if err != nil {
			return nil, err
		}
		return &boltStore{db: db, pool: p, commit: db.Update}, nil
	}}
}

// BoltBatched is bbolt with Batch, which shares a transaction among writers.
func BoltBatched(p *workload.Pool, writers int) measure.Contestant {
	return measure.Contestant{Name: "bbolt Batch", Open: func(dir string) (measure.Recorder, error) {
		db, err := openBolt(dir)
		if err != nil {
			return nil, err
		}
		// With the defaults a batch would wait 10 ms for a thousand writers.
		db.MaxBatchSize = writers
		db.MaxBatchDelay = time.Millisecond
		return &boltStore{db: db, pool: p, commit: db.Batch}, nil
	}}
}

type boltStore struct {
	db     *bolt.DB
	pool   *workload.Pool
	keys   sequence
	commit func(func(*bolt.Tx) error) error
}

func (r *boltStore) Record(n int) error {
	value, err := marshal(r.pool, n)
	if err != nil {
		return err
	}
	key := r.keys.next()
	return r.commit(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		b.FillPercent = 0.9 // keys ascend, so a full page stays full
		return b.Put(key, value)
	})
}

func (r *boltStore) Close() error { return r.db.Close() }
