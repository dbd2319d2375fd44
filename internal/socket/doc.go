// Package socket owns the holder's socket: the process that holds a trail
// serves HTTP/1.1 with JSON and NDJSON on <trail directory>/sock, and every
// other process records and reads through it. Both ends are here; docs/protocol.md
// is the protocol, version 1.
//
// What is always true:
//
//  1. The file of the socket is never open to more than it is meant for, not
//     for a moment (Listen).
//  2. Who a peer is, the kernel says (Peer), never the peer. The holder's own
//     user and root may do everything, anybody else whom the socket's group
//     lets in may record events and ask for the trail's facts.
//  3. Answers come in the order of the events, one for each, and an event that
//     was handed to the Holder is always waited for: a peer that goes away
//     does not change what becomes of it.
//  4. What a peer costs is bounded: connections, the bytes of a line, the
//     bytes of all long lines together, the time for a head, a line and an
//     answer to be taken (the constants in server.go). A peer past a limit
//     loses its own connection and nothing else.
//
// # Record
//
// A stream of events is one request with a chunked body, and its answers are
// the response, both at once. The server reads what has arrived, records it as
// one batch, answers, and reads on: the longer a commit takes, the more events
// share the next one. Client does the same from the other end: whoever calls
// while a write is under way shares the next write.
//
// The package knows the trail only as a Holder and never parses a recorded
// line. Server and Client are safe for concurrent use.
package socket
