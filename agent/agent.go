package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/cloudwego/eino/callbacks"
	"github.com/cloudwego/eino/components"
	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/compose"
	flow "github.com/cloudwego/eino/flow/agent"
	"github.com/cloudwego/eino/flow/agent/react"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/eino"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// BaseAgent is an agent that tells hooks of all that it does.
type BaseAgent struct {
	config    Config
	signature Signature
	system    string
	setup     hook.Setup
	hooks     *hook.Manager
	react     *react.Agent

	mu       sync.Mutex
	observed bool                 // EnableObservability was called
	metadata map[string]any       // of the caller, who may say otherwise in a context
	own      map[string]any       // service_name and environment
	recorder *hook.AuditTrailHook // nil without EnableAudit
}

// Names of the agent's own parts, by which they are told from those of graphs
// that run in its tools.
const (
	graphName = "kaizen-audit agent"
	modelName = "kaizen-audit model"
)

// New makes an agent. Nothing is recorded until EnableObservability is called or a
// hook is registered.
func New(config Config, signature Signature) (*BaseAgent, error) {
	a, err := newAgent(config, signature)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return a, nil
}

func newAgent(config Config, signature Signature) (*BaseAgent, error) {
	if err := errors.Join(config.check(), signature.check()); err != nil {
		return nil, err
	}
	a := &BaseAgent{config: config, signature: signature, system: signature.system(), hooks: &hook.Manager{AgentID: config.AgentID}}
	ctx := context.Background()
	model, err := config.chatModel(ctx, a.hooks)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	tools, err := a.tools(ctx)
	if err != nil {
		return nil, err
	}
	a.react, err = react.NewAgent(ctx, &react.AgentConfig{
		ToolCallingModel: model, GraphName: graphName, ModelNodeName: modelName,
		// The model is every other step.
		MaxStep: 2 * config.MaxCycles,
		ToolsConfig: compose.ToolsNodeConfig{
			Tools: tools, UnknownToolsHandler: a.unknownTool, ToolCallMiddlewares: []compose.ToolMiddleware{forgiving, a.recording()},
		},
	})
	return a, err
}

// tools are the agent's, its specialists among them.
func (a *BaseAgent) tools(ctx context.Context) (all []tool.BaseTool, err error) {
	a.setup = hook.Setup{Model: a.config.Model, Prompt: a.system, Version: a.config.Version}
	all = append(all, a.config.Tools...)
	for _, s := range a.config.Specialists {
		all = append(all, &specialist{a.hooks, s})
	}
	names := map[string]bool{}
	for _, t := range all {
		info, err := t.Info(ctx)
		if err != nil {
			return nil, fmt.Errorf("tool: %w", err)
		}
		if names[info.Name] {
			return nil, fmt.Errorf("tool %s: there are two", info.Name)
		}
		names[info.Name] = true
		a.setup.Tools = append(a.setup.Tools, info.Name)
	}
	return all, nil
}

// AgentID is the agent_id of its entries.
func (a *BaseAgent) AgentID() string { return a.config.AgentID }

// Run asks the agent. What inputs must have and outputs will is what the signature
// says; session_id may be there besides. An error can come with outputs: an answer
// that could not be remembered, or, with ErrAnswer, one that is not what the
// signature wants, as it is.
func (a *BaseAgent) Run(ctx context.Context, inputs Inputs) (Outputs, error) {
	if inputs == nil {
		inputs = Inputs{}
	}
	ctx = a.context(ctx, inputs[SessionID])
	out, err := a.hooks.Do(ctx, hook.AgentLoop, hook.Data{AgentID: a.config.AgentID, Inputs: audit.Of(inputs), Setup: &a.setup},
		func(ctx context.Context) (any, error) { return unlessNil(a.run(ctx, inputs)) })
	if err != nil {
		err = fmt.Errorf("run %s: %w", a.config.AgentID, err)
	}
	outputs, _ := out.(Outputs)
	return outputs, err
}

func unlessNil(out Outputs, err error) (any, error) {
	if out == nil {
		return nil, err
	}
	return out, err
}

// context has what the agent knows of itself and of who is asking.
func (a *BaseAgent) context(ctx context.Context, session any) context.Context {
	a.mu.Lock()
	meta, own := maps.Clone(a.metadata), a.own
	a.mu.Unlock()
	if meta == nil {
		meta = map[string]any{}
	}
	maps.Copy(meta, hook.MetadataOf(ctx)) // nearer than what was said once
	maps.Copy(meta, own)
	if session != nil {
		meta[SessionID] = session
	}
	return hook.WithMetadata(ctx, meta)
}

func (a *BaseAgent) run(ctx context.Context, inputs Inputs) (Outputs, error) {
	text, err := a.signature.user(inputs)
	if err != nil {
		return nil, err
	}
	session, err := session(inputs)
	if err != nil {
		return nil, err
	}
	var messages []*schema.Message
	if a.system != "" {
		messages = append(messages, schema.SystemMessage(a.system))
	}
	remembers := a.config.Memory != nil && session != ""
	if remembers {
		history, err := a.load(ctx, session)
		if err != nil {
			return nil, fmt.Errorf("memory: %w", err)
		}
		messages = append(messages, history...)
	}
	question := schema.UserMessage(text)
	answer, err := a.ask(ctx, append(messages, question))
	if err != nil {
		return nil, err
	}
	out, err := a.signature.outputs(answer.Content)
	if err == nil && remembers {
		if err = a.save(ctx, session, question, schema.AssistantMessage(answer.Content, nil)); err != nil {
			err = fmt.Errorf("memory: %w", err)
		}
	}
	return out, err
}

func session(inputs Inputs) (string, error) {
	switch s := inputs[SessionID].(type) {
	case nil:
		return "", nil
	case string:
		return s, nil
	}
	return "", fmt.Errorf("input %s: it is no string", SessionID)
}

// runKey is set in the context of a run to its handler: a specialist's graph is
// told to the handlers of the agent that calls it too, which are not to listen.
type runKey struct{}

// ask runs eino's agent.
func (a *BaseAgent) ask(ctx context.Context, messages []*schema.Message) (*schema.Message, error) {
	var h *eino.Handler
	h = eino.NewHandler(a.hooks, &eino.Options{Skip: func(ctx context.Context, info *callbacks.RunInfo) bool {
		switch {
		case ctx.Value(runKey{}) != h:
			return true
		case info.Component == compose.ComponentOfGraph:
			return info.Name == graphName // the loop, which Run tells of
		case info.Component == components.ComponentOfChatModel:
			return info.Name == modelName && a.config.ChatModel == nil // on the wire
		case info.Component == components.ComponentOfTool:
			return a.specialist(info.Name)
		}
		return false
	}})
	ctx = context.WithValue(ctx, runKey{}, h)
	answer, err := a.react.Generate(ctx, messages, flow.WithComposeOptions(compose.WithCallbacks(h)))
	h.Wait()
	if err != nil {
		return nil, a.cause(err)
	}
	return answer, nil
}

// cause is an error without what eino says of its graph.
func (a *BaseAgent) cause(err error) error {
	if errors.Is(err, compose.ErrExceedMaxSteps) {
		return fmt.Errorf("there is no answer after %d cycles: %w", a.config.MaxCycles, compose.ErrExceedMaxSteps)
	}
	for strings.HasPrefix(err.Error(), "[NodeRunError]") {
		inner := errors.Unwrap(err)
		if inner == nil {
			break
		}
		err = inner
	}
	return err
}

func (a *BaseAgent) load(ctx context.Context, session string) (history []*schema.Message, err error) {
	_, err = a.hooks.Do(ctx, hook.MemoryLoad, hook.Data{Inputs: audit.Of(map[string]any{SessionID: session})}, func(ctx context.Context) (any, error) {
		if history, err = a.config.Memory.Load(ctx, session); err != nil {
			return nil, err
		}
		return map[string]any{"messages": append([]*schema.Message{}, history...)}, nil
	})
	return history, err
}

func (a *BaseAgent) save(ctx context.Context, session string, messages ...*schema.Message) error {
	d := hook.Data{Inputs: audit.Of(map[string]any{SessionID: session, "messages": messages})}
	_, err := a.hooks.Do(ctx, hook.MemorySave, d, func(ctx context.Context) (any, error) {
		return nil, a.config.Memory.Save(ctx, session, messages...)
	})
	return err
}

// DeleteMemory forgets a conversation.
func (a *BaseAgent) DeleteMemory(ctx context.Context, session string) error {
	if a.config.Memory == nil {
		return errors.New("delete memory: the agent has none")
	}
	d := hook.Data{AgentID: a.config.AgentID, Inputs: audit.Of(map[string]any{SessionID: session})}
	_, err := a.hooks.Do(a.context(ctx, session), hook.MemoryDelete, d, func(ctx context.Context) (any, error) {
		return nil, a.config.Memory.Delete(ctx, session)
	})
	if err != nil {
		return fmt.Errorf("delete memory: %w", err)
	}
	return nil
}
