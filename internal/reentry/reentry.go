// Package reentry lets what feeds an audit trail notice that it is called by what
// records in it, on whichever goroutine: a logger in the function that is told
// that an entry is lost makes a record of that, whose entry is lost, and so on.
// Such functions have no context to carry a mark, so the stack does.
package reentry

import (
	"reflect"
	"runtime"
	"slices"
)

// Guard calls f, and marks it.
//
//go:noinline
func Guard(f func()) { f() }

// guard is where the one call in Guard returns to.
var guard = func() (at uintptr) {
	entry := runtime.FuncForPC(reflect.ValueOf(Guard).Pointer()).Entry()
	Guard(func() {
		var pcs [8]uintptr
		for _, pc := range pcs[:runtime.Callers(0, pcs[:])] {
			if runtime.FuncForPC(pc-1).Entry() == entry {
				at = pc
			}
		}
	})
	return at
}()

// depth is how far up the mark is looked for. Between a hook and the logger that it
// calls are some ten calls; a thousand are none that somebody has written by hand.
const depth = 1000

// Guarded tells whether this goroutine is in a function that Guard calls.
func Guarded() bool {
	var few [64]uintptr
	pcs := few[:runtime.Callers(2, few[:])]
	if len(pcs) == len(few) {
		many := make([]uintptr, depth)
		pcs = many[:runtime.Callers(2, many)]
	}
	return slices.Contains(pcs, guard)
}
