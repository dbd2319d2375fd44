// Package durabletest has file systems for tests of code that stands on
// package durable.
//
//   - [Mem] is a file system in memory with a page cache and a disk. What was
//     not synced is in the page cache alone, and [Mem.Crash] gives the file
//     system as it may be found after a power failure at that moment.
//   - [Faults] stands in front of any file system, numbers its operations and
//     makes chosen ones fail: before they happened, after they happened, or a
//     write in the middle.
//   - [Trace] writes the operations down, one a line, so that their order can
//     be pinned as a golden file.
//   - [EachOp] and [EachCrash] run one scenario again and again, with a fault
//     or a power failure at every operation in turn.
//
// A test of a commit, whole:
//
//	durabletest.EachCrash(t, 10, func(t *testing.T, r *durabletest.Run) {
//		var acked int
//		r.Inject(func() { acked = appendLines(r.FS, "/log") })
//		if n := countLines(t, r.Restart(), "/log"); n < acked {
//			t.Errorf("%d lines acknowledged, %d found", acked, n)
//		}
//	})
//
// Everything here is safe for concurrent use, except that a File is used by
// one goroutine at a time, as package durable says.
package durabletest
