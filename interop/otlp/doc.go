// Package otlp has other people's programs send to a real serve --otlp: the
// OpenTelemetry SDKs for Go and for JavaScript with their exporters over HTTP,
// in protobuf and JSON, traces and logs. What arrives is the entries that were
// meant, in the tree that was meant.
//
// It is a module of its own so that nobody depends on these SDKs, and other
// than interop because it shares nothing with it.
package otlp
