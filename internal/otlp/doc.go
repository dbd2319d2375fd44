// Package otlp takes what OpenTelemetry's SDKs and collectors send, OTLP over
// HTTP in protobuf and JSON, traces and logs, and makes entries of it.
//
// What is true of every request:
//
//  1. It is answered with success only when everything in it is on disk, or was
//     refused with a reason that the answer names.
//  2. What a passing fault keeps from being recorded is answered with 503: the
//     sender sends all of it again. A span or record that is there already is
//     not recorded twice: its idempotency key is made of its ids and the digest
//     of its text.
//  3. An entry depends on nothing but its own span, resource and scope, however
//     the sender has put them together.
//  4. Every span is an entry: what is not known is a SPAN with all of its
//     attributes. Only a span without ids is refused.
//
// decoder (proto.go, json.go) reads both encodings into the structs of model.go,
// within [Limits]; table.go says which attribute means what, in whatever
// vocabulary; map.go makes of a span the operation of package genai, and that
// the event. The encodings are read here and not by generated code: OTLP's JSON
// is not protobuf's, a few bytes can stand for a large struct, and the library
// stays without another dependency (docs/dependencies.md).
package otlp
