// Package anthropicaudit has the calls recorded that a client of
// github.com/anthropics/anthropic-sdk-go makes:
//
//	client := anthropic.NewClient(anthropicaudit.Record(hooks))
//
// What an entry holds is said in package llmhttp, which does the work: the whole
// request and response, a stream put together, the model, tokens and status, no
// header. Messages, beta or not, counting of tokens, batches as they are handed in,
// and completions are calls of models; other requests, such as those for files or
// for the results of a batch, have no entry.
//
// With the SDK's options for Amazon Bedrock and Vertex AI it comes before these: it
// then sees what all providers have in common.
//
// It is a module of its own, so that programs without the SDK do without it.
package anthropicaudit

import (
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/kaizen-audit/kaizen-audit/adapter/llmhttp"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// Record is an option of a client, or of one of its calls. Each attempt of a call
// is an LLM_CALL entry, below the action that the call's context belongs to; of
// one that the SDK has tried again metadata.retry says the how many-th it is.
//
// With hook.AuditOptions.FailClosed a call fails with hook.ErrFailClosed if it
// can't be recorded.
func Record(hooks *hook.Manager) option.RequestOption {
	return option.WithMiddleware(llmhttp.Middleware(hooks))
}
