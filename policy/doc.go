// Package policy decides what may be written into a trail. It is one pipeline,
// run over every event before it reaches any file, in this order:
//
//  1. Accesses: a tool rule makes an event a PHI_ACCESS or CHD_ACCESS, says what
//     was acted on and why, and where further data subjects stand. An access
//     that lacks one of the six fields of PCI DSS 10.2.2 is flagged.
//  2. Purposes: an event without a declared purpose is flagged or refused.
//  3. Only: what is on no list of what is kept is dropped.
//  4. Fields: the first rule whose path leads to a value, or to something around
//     it, decides.
//  5. Detectors: card numbers are masked, what belongs to a card dropped,
//     secrets masked, personal data marked, unless Actions says otherwise.
//
// Rules see every string, number and member name, in JSON that stands in strings
// too, 16 levels deep; what goes deeper is masked whole. Detectors leave alone
// what makes an entry findable: event_type, agent_id, trace_id, span_id,
// parent_span_id, event_id, recorded_by, resource, metadata.user_id and
// metadata.session_id. A rule in Fields may change them, but for event_type,
// event_id and what the trail adds.
//
// What was done is noted in the entry's member policy by JSON pointer and rule,
// never with a value (docs/format.md §1.2). A pointer that leads into JSON inside
// a string ends at that string.
//
// Policy is pure: no I/O, no clock, no state between calls. What needs a key of
// the trail is done by the Tokens that it is given. Running it over what it left
// changes nothing, so that an event may pass it where it is captured and again
// where it is recorded.
package policy
