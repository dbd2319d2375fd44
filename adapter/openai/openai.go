// Package openaiaudit has the calls recorded that a client of
// github.com/openai/openai-go makes:
//
//	client := openai.NewClient(openaiaudit.Record(hooks))
//
// What an entry holds is said in package llmhttp, which does the work: the whole
// request and response, a stream put together, the model, tokens and status, no
// header. Chat completions, completions, responses, embeddings, images, audio,
// moderations are calls of models; other requests, such as those for videos and
// files, have no entry. Neither has what goes over WebSockets (realtime, and
// responses over them): the SDK's middleware does not see it.
//
// It is a module of its own, so that programs without the SDK do without it.
package openaiaudit

import (
	"github.com/openai/openai-go/v3/option"

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
