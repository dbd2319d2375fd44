package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/eino"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// recording has the use of tools recorded. Specialists tell of themselves.
func (a *BaseAgent) recording() compose.ToolMiddleware {
	m := eino.ToolMiddleware(a.hooks)
	record := m.Invokable
	m.Invokable = func(next compose.InvokableToolEndpoint) compose.InvokableToolEndpoint {
		recorded := record(next)
		return func(ctx context.Context, in *compose.ToolInput) (*compose.ToolOutput, error) {
			if a.specialist(in.Name) {
				return next(ctx, in)
			}
			return recorded(ctx, in)
		}
	}
	return m
}

func (a *BaseAgent) specialist(name string) bool {
	return slices.ContainsFunc(a.config.Specialists, func(s *BaseAgent) bool { return s.config.AgentID == name })
}

// forgiving tells the model what went wrong with a tool, and lets the run go on.
var forgiving = compose.ToolMiddleware{
	Invokable: func(next compose.InvokableToolEndpoint) compose.InvokableToolEndpoint {
		return func(ctx context.Context, in *compose.ToolInput) (*compose.ToolOutput, error) {
			out, err := next(ctx, in)
			if forgivable(ctx, err) {
				return &compose.ToolOutput{Result: told(err)}, nil
			}
			return out, err
		}
	},
	Streamable: func(next compose.StreamableToolEndpoint) compose.StreamableToolEndpoint {
		return func(ctx context.Context, in *compose.ToolInput) (*compose.StreamToolOutput, error) {
			out, err := next(ctx, in)
			if forgivable(ctx, err) {
				return &compose.StreamToolOutput{Result: schema.StreamReaderFromArray([]string{told(err)})}, nil
			}
			return out, err
		}
	},
	EnhancedInvokable: func(next compose.EnhancedInvokableToolEndpoint) compose.EnhancedInvokableToolEndpoint {
		return func(ctx context.Context, in *compose.ToolInput) (*compose.EnhancedInvokableToolOutput, error) {
			out, err := next(ctx, in)
			if forgivable(ctx, err) {
				return &compose.EnhancedInvokableToolOutput{Result: &schema.ToolResult{Parts: []schema.ToolOutputPart{{Type: schema.ToolPartTypeText, Text: told(err)}}}}, nil
			}
			return out, err
		}
	},
}

func told(err error) string { return "error: " + err.Error() }

// forgivable tells the error of a tool from the end of the run, and from what must
// not go on.
func forgivable(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || errors.Is(err, hook.ErrFailClosed) {
		return false
	}
	_, waits := compose.IsInterruptRerunError(err)
	return !waits
}

// written is what a model has written for a tool, JSON or not.
func written(arguments string) audit.Object {
	if json.Valid([]byte(arguments)) {
		return audit.Raw([]byte(arguments))
	}
	return audit.Of(arguments)
}

// unknownTool answers a model that calls a tool that is not there.
func (a *BaseAgent) unknownTool(ctx context.Context, name, arguments string) (string, error) {
	_, err := a.hooks.Do(ctx, hook.ToolUse, hook.Data{Name: name, Inputs: written(arguments)}, func(context.Context) (any, error) {
		return nil, errors.New("there is no such tool")
	})
	if forgivable(ctx, err) {
		return told(err), nil
	}
	return "", err
}

// specialist is an agent as another one's tool.
type specialist struct {
	hooks *hook.Manager // of the agent that calls it
	agent *BaseAgent
}

var _ tool.InvokableTool = (*specialist)(nil)

// Info is what the model is told of it.
func (s *specialist) Info(context.Context) (*schema.ToolInfo, error) {
	params := map[string]*schema.ParameterInfo{}
	for _, f := range s.agent.signature.Inputs {
		params[f.Name] = &schema.ParameterInfo{Type: schema.String, Desc: f.Description, Required: f.Default == nil}
	}
	return &schema.ToolInfo{Name: s.agent.config.AgentID, Desc: s.agent.signature.Instructions, ParamsOneOf: schema.NewParamsOneOfByParams(params)}, nil
}

// InvokableRun runs it, with what the model has written.
func (s *specialist) InvokableRun(ctx context.Context, arguments string, _ ...tool.Option) (string, error) {
	d := hook.Data{Name: s.agent.config.AgentID, Inputs: written(arguments)}
	out, err := s.hooks.Do(ctx, hook.SpecialistInvoke, d, func(ctx context.Context) (any, error) {
		var inputs Inputs
		if err := json.Unmarshal([]byte(arguments), &inputs); err != nil {
			return nil, errors.New("the arguments are no JSON object")
		}
		return unlessNil(s.agent.Run(ctx, inputs))
	})
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(out)
	if err != nil {
		return "", fmt.Errorf("specialist %s: %w", s.agent.config.AgentID, err)
	}
	return string(text), nil
}
