package peer

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/rs/zerolog"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// JSON is encoding/json and a file.
func JSON(p *workload.Pool, mode Mode) measure.Contestant {
	return measure.Contestant{Name: "encoding/json + file", Open: func(dir string) (measure.Recorder, error) {
		f, err := create(dir, mode)
		return &jsonFile{file: f, pool: p}, err
	}}
}

type jsonFile struct {
	file
	pool *workload.Pool
	mu   sync.Mutex
}

func (r *jsonFile) Record(n int) error {
	e := stamped(r.pool, n)
	line, err := json.Marshal(&e)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.Write(append(line, '\n')); err != nil {
		return err
	}
	return r.settle()
}

// The format is a variable of the package: set once, before anybody logs.
func init() { zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00" }

// Zerolog is github.com/rs/zerolog and a file.
func Zerolog(p *workload.Pool, mode Mode) measure.Contestant {
	return measure.Contestant{Name: "zerolog", Open: func(dir string) (measure.Recorder, error) {
		f, err := create(dir, mode)
		r := &zerologFile{file: f, pool: p}
		r.log = zerolog.New(&r.sink)
		r.sink.file = f
		return r, err
	}}
}

type zerologFile struct {
	file
	pool *workload.Pool
	log  zerolog.Logger
	sink keepError
}

// keepError keeps what a logger would only print: that a write failed.
type keepError struct {
	file file
	err  error
}

func (k *keepError) Write(b []byte) (int, error) {
	n, err := k.file.Write(b)
	if err != nil {
		k.err = err
	}
	return n, err
}

func (r *zerologFile) Record(n int) error {
	e := stamped(r.pool, n)
	r.log.Log().
		Time("timestamp", e.Timestamp).
		Str("event_type", e.EventType).
		Str("agent_id", e.AgentID).
		Str("trace_id", e.TraceID).
		Str("action", e.Action).
		RawJSON("inputs", e.Inputs).
		RawJSON("outputs", e.Outputs).
		Float64("duration_ms", e.DurationMS).
		Bool("success", e.Success).
		Interface("error", nil).
		RawJSON("metadata", e.Metadata).
		Str("event_id", e.EventID).
		Time("recorded_at", e.RecordedAt).
		Send()
	if r.sink.err != nil {
		return r.sink.err
	}
	return r.settle()
}

// Slog is log/slog with its JSON handler and a file.
func Slog(p *workload.Pool, mode Mode) measure.Contestant {
	return measure.Contestant{Name: "log/slog", Open: func(dir string) (measure.Recorder, error) {
		f, err := create(dir, mode)
		return &slogFile{file: f, pool: p, handler: slog.NewJSONHandler(f, nil)}, err
	}}
}

type slogFile struct {
	file
	pool    *workload.Pool
	handler slog.Handler
}

// Record goes through the handler, whose error a Logger would drop. The record
// has time, level and message as every record of slog has; the message is the
// action.
func (r *slogFile) Record(n int) error {
	e := stamped(r.pool, n)
	rec := slog.NewRecord(e.Timestamp, slog.LevelInfo, e.Action, 0)
	rec.AddAttrs(
		slog.String("event_type", e.EventType),
		slog.String("agent_id", e.AgentID),
		slog.String("trace_id", e.TraceID),
		slog.Any("inputs", e.Inputs),
		slog.Any("outputs", e.Outputs),
		slog.Float64("duration_ms", e.DurationMS),
		slog.Bool("success", e.Success),
		slog.Any("error", nil),
		slog.Any("metadata", e.Metadata),
		slog.String("event_id", e.EventID),
		slog.Time("recorded_at", e.RecordedAt),
	)
	if err := r.handler.Handle(context.Background(), rec); err != nil {
		return err
	}
	return r.settle()
}
