// Package capture is the one mapping from what model providers send and get to
// what an entry of a model call says. It knows the wire formats of the OpenAI
// APIs (and those that are compatible), Anthropic, Gemini and Vertex AI, and
// Amazon Bedrock; of any other API it keeps what there is.
//
// Inputs are the request as it was sent and outputs the response as it came; a
// streamed response is put together to what the same call answers without
// streaming. What both say in their own words stands once more in a Call, in
// the words of OpenTelemetry's semantic conventions for generative AI.
//
// Nothing here does I/O or keeps state between calls; headers are no concern of
// it but for those that it names.
package capture
