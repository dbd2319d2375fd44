// Package entry has the nouns of a trail: the [Event] that a caller hands
// over, the [Entry] that is stored, and the one line of JSON between them.
//
// [AppendLine] writes a line without reflection, in the documented order of
// members, and refuses what must not be stored: duplicate member names, lone
// surrogates, invalid UTF-8, deep nesting, long lines. [Parse] reads what we
// or anybody else wrote and is tolerant. [ParseEvent] reads an event from
// outside and is strict. docs/format.md §1 is the specification.
//
// The package imports nothing of ours, does no I/O and keeps no state. Its
// functions are safe for concurrent use.
package entry
