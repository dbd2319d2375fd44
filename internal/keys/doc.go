// Package keys keeps the keys of a trail that seals: DEKs, under which whole
// lines are sealed, and subject keys, under which a person's fields are, all
// wrapped, in the files of keys/ that docs/format-sealing.md §6.6 specifies; and
// it destroys subject keys (§6.7).
//
// What is always true:
//
//  1. A key that was handed out for writing is durable before anything sealed
//     with it can be: [Store.Sync] returns first. A DEK is durable when the call
//     that made it returns.
//  2. A subject whose erasure is done ([Store.Destroy] returned) has no key in
//     any file here, and none in memory.
//  3. After a crash at any step an erasure has not begun, or is completed by
//     Destroy on the next opening.
//
// There is one writer of a store, which has the trail's lock; any number read it
// meanwhile ([Options.ReadOnly]) and find what the writer adds.
//
// Memory is bounded: the keys of [cachedPages] pages are held, and of older ones
// read when somebody asks. So a subject may have several handles: when its last
// one is on a page that is no longer held, it gets another. Who has to know all
// of them asks [Store.Find], which reads every page.
//
// A Store is safe for concurrent use. Nothing here logs, and no error names a
// subject or shows a key.
package keys
