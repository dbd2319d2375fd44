// Package journal owns the lines on disk: it appends them with group commit,
// cuts off and compresses segments, recovers after a crash, and reads them
// back. It takes bytes and never parses a line.
//
// # Invariants
//
//  1. An append is acknowledged only after its line is in a file in the
//     durability that was asked for: in the open segment or in the ring, in
//     mode Durable after its sync. Batches are written in the order of their
//     lines, and acknowledged in that order: of two that are on their way to
//     the ring at once, the second waits for the first.
//  2. The open path always names a file: a seal replaces it by rename.
//  3. A line that was synced is never cut. What is cut at recovery is copied to
//     aside/ first, and the copy is durable before the cut.
//  4. After a sync has failed no append is taken until the journal is opened
//     again: the kernel may have dropped the pages and call them clean. What is
//     behind (8) is written for who reads until then; nothing trusts it.
//  5. A batch that was not written whole is cut back before the next one, so
//     that a line never follows half a line.
//  6. Plain segments are removed only when the compressed file was synced, read
//     back and compared, and the manifest that names it is durable.
//  7. A part of the ring is used again only when all lines in it are in their
//     segment, in mode Durable synced there.
//  8. What is acknowledged has its space in the segment, and is written there
//     before anything of the journal reads, syncs, cuts or closes the segment.
//     A view says what it lacks where that fails.
//
// # Commit
//
// A caller adds its lines to the current batch. If nobody leads that, it becomes
// the leader: it waits for those who are about to come, takes the batch, gives it
// its place, and makes way for the next leader; then it makes the batch durable and
// wakes who waited. With a ring and many callers two batches are on their way, so
// that processors and disk both have work. In mode Written the ring is the place, and
// the open segment catches up behind.
// A caller whose context can be cancelled never leads: its wait is bounded by
// the context, and a disk that hangs would hold it. A goroutine for every
// batch was tried first: with one writer it cost two switches an append.
//
// # After a crash
//
// Power fails while a batch is written: the file ends in any prefix of it, or,
// unsynced blocks being written in any order, in garbage no longer than what
// was unsynced. With a ring that can be acknowledged lines: they are written
// from the ring first, before anything is judged. Recovery keeps the valid
// lines, writes them again (the page cache is not trusted), sets the rest
// aside.
//
// Lock order: Journal.commit, then syncing, then behind.catching, then mu. None but commit is held while
// waiting for a batch, and mu is never held while the disk works.
package journal
