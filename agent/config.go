package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"

	"github.com/cloudwego/eino-ext/components/model/claude"
	"github.com/cloudwego/eino-ext/components/model/openai"
	"github.com/cloudwego/eino/components/model"
	"github.com/cloudwego/eino/components/tool"

	"github.com/kaizen-audit/kaizen-audit/adapter/llmhttp"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// Config is what an agent is made of.
type Config struct {
	// AgentID is every entry's agent_id; empty means "agent". It has at most 64
	// letters, digits, _ and -: a model calls a specialist by it.
	AgentID string
	// LLMProvider is whose API the model has: "openai", which many servers speak,
	// or "anthropic"; empty means openai.
	LLMProvider string
	// Model is the model's name.
	Model string
	// BaseURL is where the API is; empty means OPENAI_BASE_URL or
	// ANTHROPIC_BASE_URL, else the provider's own. OpenAI's ends in /v1,
	// Anthropic's does not.
	BaseURL string
	// APIKey is the credential; empty means OPENAI_API_KEY or ANTHROPIC_API_KEY.
	APIKey string
	// Temperature is the provider's own where it is nil.
	Temperature *float32
	// MaxTokens bounds one answer; 0 means the provider's own bound, and 4096
	// for anthropic, which has none.
	MaxTokens int
	// HTTPClient makes the calls; nil means http.DefaultClient.
	HTTPClient *http.Client

	// ChatModel is any other model, in place of the settings above. Model may
	// name it.
	ChatModel model.ToolCallingChatModel

	// Tools are eino's: utils.InferTool makes one of a function. What an error
	// of a tool says is told to the model, which may try something else.
	Tools []tool.BaseTool
	// Specialists are agents that the model can call like tools, by their
	// AgentID.
	Specialists []*BaseAgent
	// Memory keeps the conversation of runs that have a session_id; nil means
	// that each run begins anew.
	Memory Memory
	// MaxCycles bounds how often the model is asked in one run; 0 means 10.
	MaxCycles int
	// Version is the version of the agent's code, for hook.Setup.
	Version string
}

const (
	openAI    = "openai"
	anthropic = "anthropic"
	// maxTokens is what anthropic is told where nobody has said anything: the
	// API wants a bound, and all of its models take this one.
	maxTokens = 4096
	// maxCycles is enough for nine rounds of tools.
	maxCycles = 10
)

// id is a name that a model can call a tool by, whatever its provider.
var id = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

func (c *Config) check() error {
	c.AgentID = cmp.Or(c.AgentID, "agent")
	c.MaxCycles = cmp.Or(c.MaxCycles, maxCycles)
	switch {
	case !id.MatchString(c.AgentID):
		return fmt.Errorf("option AgentID: %q: it has other characters than letters, digits, _ and -, or more than 64", c.AgentID)
	case c.MaxCycles < 0:
		return fmt.Errorf("option MaxCycles: %d is negative", c.MaxCycles)
	case c.MaxTokens < 0:
		return fmt.Errorf("option MaxTokens: %d is negative", c.MaxTokens)
	case c.ChatModel != nil:
		return nil
	case c.Model == "":
		return errors.New("option Model: it is missing")
	}
	env := "OPENAI"
	switch c.LLMProvider = cmp.Or(c.LLMProvider, openAI); c.LLMProvider {
	case openAI:
	case anthropic:
		env = "ANTHROPIC"
		c.MaxTokens = cmp.Or(c.MaxTokens, maxTokens)
	default:
		return fmt.Errorf("option LLMProvider: %q is neither openai nor anthropic: set BaseURL for a server that speaks one of these, or ChatModel", c.LLMProvider)
	}
	c.BaseURL = cmp.Or(c.BaseURL, os.Getenv(env+"_BASE_URL"))
	c.APIKey = cmp.Or(c.APIKey, os.Getenv(env+"_API_KEY"))
	if c.APIKey == "" && c.BaseURL == "" {
		return fmt.Errorf("option APIKey: it is missing: set %s_API_KEY", env)
	}
	return nil
}

// chatModel makes the model. Its calls are recorded on the wire.
func (c *Config) chatModel(ctx context.Context, hooks *hook.Manager) (model.ToolCallingChatModel, error) {
	if c.ChatModel != nil {
		return c.ChatModel, nil
	}
	client := http.Client{}
	if c.HTTPClient != nil {
		client = *c.HTTPClient
	}
	client.Transport = llmhttp.NewTransport(hooks, client.Transport)
	if c.LLMProvider == anthropic {
		config := &claude.Config{APIKey: c.APIKey, Model: c.Model, Temperature: c.Temperature, MaxTokens: c.MaxTokens, HTTPClient: &client}
		if c.BaseURL != "" {
			config.BaseURL = &c.BaseURL
		}
		return claude.NewChatModel(ctx, config)
	}
	config := &openai.ChatModelConfig{APIKey: c.APIKey, BaseURL: c.BaseURL, Model: c.Model, Temperature: c.Temperature, HTTPClient: &client}
	switch {
	case c.MaxTokens > 0 && c.BaseURL == "":
		config.MaxCompletionTokens = &c.MaxTokens // OpenAI's newer models know nothing else
	case c.MaxTokens > 0:
		config.MaxTokens = &c.MaxTokens // and some compatible servers only the older name
	}
	return openai.NewChatModel(ctx, config)
}
