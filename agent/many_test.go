package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/eino/components/tool"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/agent"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// busy is a server that speaks OpenAI's API: its model first calls every tool that
// it is offered, note twice, with what the user has said, and then answers with
// that.
func busy(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var asked struct {
			Model    string `json:"model"`
			Messages []struct{ Role, Content string }
			Tools    []struct{ Function struct{ Name string } }
		}
		body, _ := io.ReadAll(req.Body)
		if err := json.Unmarshal(body, &asked); err != nil {
			t.Error(err)
		}
		said, answered := "", false
		for _, m := range asked.Messages {
			switch m.Role {
			case "user":
				said, answered = m.Content, false
			case "tool":
				answered = true
			}
		}
		message := map[string]any{"role": "assistant", "content": "answer to " + said}
		reason := "stop"
		if !answered {
			var calls []any
			for i, f := range asked.Tools {
				arguments := func(n int) string {
					b, _ := json.Marshal(map[string]any{"question": said, "n": n})
					if f.Function.Name != "note" {
						b, _ = json.Marshal(map[string]any{"question": said})
					}
					return string(b)
				}
				for n := range 2 {
					if n == 0 || f.Function.Name == "note" {
						calls = append(calls, map[string]any{"id": fmt.Sprintf("call_%d_%d", i, n), "type": "function", "function": map[string]any{"name": f.Function.Name, "arguments": arguments(n)}})
					}
				}
			}
			message, reason = map[string]any{"role": "assistant", "content": nil, "tool_calls": calls}, "tool_calls"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"id": "x", "object": "chat.completion", "model": asked.Model, "usage": map[string]any{"prompt_tokens": 1, "completion_tokens": 1},
			"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": reason}},
		})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

type noting struct {
	Question string `json:"question"`
	N        int    `json:"n"`
}

var users = regexp.MustCompile(`user-[0-9]+`)

// node is an action with what is in it, as text.
type node struct {
	name  string
	below []*node
}

func (n *node) String() string {
	var below []string
	for _, b := range n.below {
		below = append(below, b.String())
	}
	slices.Sort(below)
	if len(below) == 0 {
		return n.name
	}
	return n.name + "(" + strings.Join(below, " ") + ")"
}

// A hundred agents, each with a specialist that has one too, all with tools that
// run side by side, and one of them asked by 21 users at once: every trace is the
// whole tree, and has nothing of another's.
func TestOfManyAgentsAtOnceEveryTraceIsACompleteTree(t *testing.T) {
	const agents, runs = 100, 120
	p := newTrail(t)
	url := busy(t)
	trail, err := audit.Open(p.path, &audit.Options{StateDir: p.state, Durability: audit.Written})
	if err != nil {
		t.Fatal(err)
	}
	o := agent.Observability{EnableAudit: true, AuditTrail: trail, Recording: patient()}
	o.Recording.Warn = func(err error) { t.Error(err) }
	made := make([]*agent.BaseAgent, agents)
	for i := range made {
		var below []*agent.BaseAgent
		for _, role := range []string{"clerk", "specialist", "boss"} {
			a, err := agent.New(agent.Config{
				AgentID: fmt.Sprintf("%s-%d", role, i), Model: role, BaseURL: url, Specialists: below, Memory: agent.NewBufferMemory(1),
				Tools: []tool.BaseTool{infer(t, "note", "notes", func(ctx context.Context, in noting) (string, error) {
					if got := hook.MetadataOf(ctx)["user_id"]; got != in.Question {
						t.Errorf("the tool of %s is used for %v", in.Question, got)
					}
					return in.Question, nil
				})},
			}, answering)
			if err != nil {
				t.Fatal(err)
			}
			below, made[i] = []*agent.BaseAgent{a}, a
		}
		o.ServiceName = fmt.Sprintf("service-%d", i)
		if err := made[i].EnableObservability(o); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	var wg sync.WaitGroup
	for i := range runs {
		user := fmt.Sprintf("user-%03d", i)
		wg.Go(func() {
			ctx := hook.WithMetadata(t.Context(), map[string]any{"user_id": user})
			out, err := made[min(i, agents-1)].Run(ctx, agent.Inputs{"question": user, "session_id": "session-" + user})
			if err != nil || out["answer"] != "answer to "+user {
				t.Errorf("%v %v", out, err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d runs took %s", runs, time.Since(began))
	for _, a := range made {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}

	nodes, traces := map[string]*node{}, map[string]string{}
	all := p.entries(t)
	for _, e := range all {
		user := e.Metadata.Text("user_id")
		var n int
		if _, err := fmt.Sscanf(user, "user-%d", &n); err != nil {
			t.Fatalf("%s", e.Line())
		}
		i := min(n, agents-1)
		if trace := traces[user]; trace == "" {
			traces[user] = e.TraceID
		} else if trace != e.TraceID {
			t.Fatalf("%s has two traces", user)
		}
		for _, named := range users.FindAllString(string(e.Line()), -1) {
			if named != user {
				t.Fatalf("the entry of %s has something of %s: %s", user, named, e.Line())
			}
		}
		if e.Metadata.Text("session_id") != "session-"+user || e.Metadata.Text("service_name") != fmt.Sprintf("service-%d", i) || !strings.HasSuffix(e.AgentID, fmt.Sprintf("-%d", i)) {
			t.Fatalf("%s", e.Line())
		}
		if e.EventType == audit.AgentLoopStart {
			continue
		}
		if nodes[e.SpanID] != nil {
			t.Errorf("an action has two entries: %s", e.Line())
		}
		nodes[e.SpanID] = &node{name: strings.TrimSuffix(e.AgentID, fmt.Sprintf("-%d", i)) + "." + strings.TrimSuffix(e.Action, fmt.Sprintf("-%d", i))}
	}
	starts := 0
	var roots []*node
	for _, e := range all {
		switch parent := nodes[e.ParentSpanID]; {
		case e.EventType == audit.AgentLoopStart:
			starts++
		case e.ParentSpanID == "":
			roots = append(roots, nodes[e.SpanID])
		case parent == nil:
			t.Fatalf("its parent is not there: %s", e.Line())
		default:
			parent.below = append(parent.below, nodes[e.SpanID])
		}
	}
	work := func(who string) string {
		return who + ".llm_call:" + who + " " + who + ".llm_call:" + who
	}
	notes := func(who string) string { return who + ".tool_use:note " + who + ".tool_use:note" }
	clerk := "clerk.agent_execution_end(" + work("clerk") + " " + notes("clerk") + ")"
	specialist := "specialist.agent_execution_end(" + work("specialist") + " specialist.specialist_invoke:clerk(" + clerk + ") " + notes("specialist") + ")"
	want := "boss.agent_execution_end(" + work("boss") + " boss.memory_load boss.memory_save boss.specialist_invoke:specialist(" + specialist + ") " + notes("boss") + ")"
	for _, r := range roots {
		if r.String() != want {
			t.Fatalf("got  %s\nwant %s", r, want)
		}
	}
	if len(roots) != runs || len(traces) != runs || starts != 3*runs || len(all) != runs*(9+7+6) {
		t.Errorf("%d roots, %d traces, %d starts, %d entries", len(roots), len(traces), starts, len(all))
	}
}
