package durabletest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// ErrCrashed is what every operation of a crashed process reports.
var ErrCrashed = errors.New("the power is off")

// Run is one round of a scenario of [EachOp] or [EachCrash].
type Run struct {
	// FS is what the scenario works on. Faults come only while Inject runs.
	FS durable.FS
	// Mem is the file system below FS, where nothing fails.
	Mem *Mem

	faults *Faults
	hook   func(Op) Action
	end    func() // what happens after Inject

	mu    sync.Mutex // the hook may be called by any goroutine
	fired bool       // the fault of this round came
	after *Mem       // what the crash left
}

func newRun() *Run {
	m := NewMem()
	f := NewFaults(m, nil)
	return &Run{FS: f, Mem: m, faults: f}
}

// Inject does the part of the scenario whose operations fail one after the
// other. Call it once.
func (r *Run) Inject(work func()) {
	r.faults.SetHook(r.hook)
	work()
	r.end()
}

// heal lets every operation pass again.
func (r *Run) heal() { r.faults.SetHook(nil) }

// Fired reports whether a fault or the crash has come in this round: the first
// round has none, and all must be well.
func (r *Run) Fired() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fired
}

// Restart returns the file system as the next process finds it: that after
// the crash in EachCrash, the same one in EachOp.
func (r *Run) Restart() *Mem {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.after != nil {
		return r.after
	}
	return r.Mem
}

// crash takes the file system as it is left, once.
func (r *Run) crash(rng *rand.Rand) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fired {
		r.fired = true
		r.after = r.Mem.Crash(rng)
	}
}

// count runs the scenario without a fault, for its operations.
func count(t *testing.T, run func(*testing.T, *Run)) []Op {
	t.Helper()
	r := newRun()
	var ops []Op
	r.hook = func(op Op) Action {
		if op.N > 0 {
			ops = append(ops, op)
		}
		return Pass
	}
	r.end = r.heal
	if !t.Run("no fault", func(t *testing.T) { run(t, r) }) {
		t.FailNow()
	}
	if len(ops) == 0 {
		t.Fatal("the scenario changes nothing inside Inject")
	}
	return ops
}

// EachOp runs a scenario on a fresh Mem without a fault, and then once or more
// for every operation inside Inject that changes something: it fails and did
// not happen, it fails and happened anyway, and a write also stops half way.
// Operations after it pass. A scenario has to do the same operations every
// time.
func EachOp(t *testing.T, run func(t *testing.T, r *Run)) {
	t.Helper()
	for _, op := range count(t, run) {
		ways := []struct {
			name string
			Action
		}{
			{"did not happen", FailBefore(ErrInjected)},
			{"happened anyway", FailAfter(ErrInjected)},
			{"short", ShortWrite(int(op.Size/2), ErrInjected)},
		}
		if op.Kind != "write" && op.Kind != "writeat" {
			ways = ways[:2]
		}
		if op.Kind == "close" {
			ways = ways[1:2]
		}
		for _, way := range ways {
			t.Run(fmt.Sprintf("%s %s", op.label(), way.name), func(t *testing.T) {
				r := newRun()
				r.hook = func(o Op) Action {
					if o.N != op.N {
						return Pass
					}
					r.mu.Lock()
					defer r.mu.Unlock()
					r.fired = true
					return way.Action
				}
				r.end = r.heal
				run(t, r)
				if !r.Fired() {
					t.Errorf("there was no operation %d this time", op.N)
				}
			})
		}
	}
}

// EachCrash runs a scenario on a fresh Mem, and the power fails before each
// operation inside Inject that changes something, and after the last: once
// with everything unsynced lost, and for seeds other outcomes. From the
// failure on every operation on FS reports ErrCrashed, and Restart has what
// was left.
func EachCrash(t *testing.T, seeds int, run func(t *testing.T, r *Run)) {
	t.Helper()
	ops := count(t, run)
	ops = append(ops, Op{N: len(ops) + 1, Kind: "end"})
	for _, op := range ops {
		for seed := range seeds + 1 {
			var rng *rand.Rand
			name := "all lost"
			if seed > 0 {
				rng = rand.New(rand.NewPCG(uint64(seed), uint64(op.N)))
				name = fmt.Sprintf("seed %d", seed)
			}
			t.Run(fmt.Sprintf("%s %s", op.label(), name), func(t *testing.T) {
				r := newRun()
				r.hook = func(o Op) Action {
					if o.N == op.N {
						r.crash(rng)
					}
					if r.Fired() {
						return FailBefore(ErrCrashed)
					}
					return Pass
				}
				r.end = func() { r.crash(rng) }
				run(t, r)
			})
		}
	}
}

func (op Op) label() string {
	return fmt.Sprintf("%02d %s %s", op.N, op.Kind, filepath.Base(op.Name))
}
