//lint:file-ignore SA1019 sampling is deprecated, and works: what uses it is recorded.

package mcpaudit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	audit "github.com/kaizen-audit/kaizen-audit"
	mcpaudit "github.com/kaizen-audit/kaizen-audit/adapter/mcp"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

var update = flag.Bool("update", false, "write the golden files")

// serverTrail is the environment variable with which this program is a server over
// stdio, and its value that server's trail.
const serverTrail = "MCPAUDIT_TEST_TRAIL"

func TestMain(m *testing.M) {
	if path := os.Getenv(serverTrail); path != "" {
		if err := serveStdio(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveStdio(path string) (err error) {
	s, err := open(path, "server", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return newServer(s.hooks).Run(context.Background(), &mcp.StdioTransport{})
}

// side is a trail and hooks that record in it.
type side struct {
	path     string
	trail    *audit.Trail
	recorder *hook.AuditTrailHook
	hooks    *hook.Manager
}

func open(path, agent string, opts *hook.AuditOptions) (*side, error) {
	s := &side{path: path, hooks: &hook.Manager{AgentID: agent}}
	var err error
	if s.trail, err = audit.Open(path, &audit.Options{Durability: audit.Written, StateDir: path + ".state"}); err != nil {
		return nil, err
	}
	if s.recorder, err = hook.NewAuditTrailHook(s.trail, opts); err != nil {
		return nil, err
	}
	return s, s.hooks.RegisterHook(s.recorder, nil)
}

func (s *side) close() error { return errors.Join(s.recorder.Close(), s.trail.Close()) }

func newSide(t *testing.T, agent string, opts *hook.AuditOptions) *side {
	t.Helper()
	s, err := open(filepath.Join(t.TempDir(), "audit.jsonl"), agent, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// entries are those of a trail that may be somebody else's, but for the trail's own.
func entries(t *testing.T, path string) (all []audit.Entry) {
	t.Helper()
	trail, err := audit.Open(path, &audit.Options{ReadOnly: true, StateDir: path + ".state"})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	for e, err := range trail.Query(t.Context(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

type numbers struct {
	A int `json:"a"`
	B int `json:"b"`
}

// newServer has a tool that works, one that fails, one that asks the user and one
// that asks the client's model, a resource and a prompt.
func newServer(hooks *hook.Manager) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "desk", Version: "1.2"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "add", Description: "adds two numbers"}, func(_ context.Context, _ *mcp.CallToolRequest, in numbers) (*mcp.CallToolResult, map[string]int, error) {
		return nil, map[string]int{"sum": in.A + in.B}, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "fail"}, func(context.Context, *mcp.CallToolRequest, map[string]any) (*mcp.CallToolResult, any, error) {
		return nil, nil, errors.New("the printer is on fire")
	})
	mcp.AddTool(s, &mcp.Tool{Name: "book"}, func(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		if said, ok := req.Params.InputResponses["seat"].(*mcp.ElicitResult); ok {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprint("booked: ", said.Action, said.Content["seat"])}}}, nil, nil
		}
		return &mcp.CallToolResult{RequestState: "asked", InputRequests: mcp.InputRequestMap{"seat": &mcp.ElicitParams{
			Message: "Which seat?", RequestedSchema: map[string]any{"type": "object", "properties": map[string]any{"seat": map[string]any{"type": "string"}}},
		}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "summarise"}, func(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		if said, ok := req.Params.InputResponses["model"].(*mcp.CreateMessageWithToolsResult); ok {
			return &mcp.CallToolResult{Content: said.Content}, nil, nil
		}
		return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{"model": &mcp.CreateMessageWithToolsParams{
			MaxTokens: 20, SystemPrompt: "Be short.", Messages: []*mcp.SamplingMessageV2{{Role: "user", Content: []mcp.Content{&mcp.TextContent{Text: "Sum it up"}}}},
		}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "wait"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		<-ctx.Done()
		return nil, nil, ctx.Err()
	})
	s.AddResource(&mcp.Resource{Name: "policy", URI: "file:///policy.txt", MIMEType: "text/plain"}, func(_ context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, MIMEType: "text/plain", Text: "No refunds."}}}, nil
	})
	s.AddPrompt(&mcp.Prompt{Name: "greet", Arguments: []*mcp.PromptArgument{{Name: "name"}}}, func(_ context.Context, req *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: "Hello " + req.Params.Arguments["name"]}}}}, nil
	})
	mcpaudit.RecordServer(hooks, s)
	return s
}

// newClient has a user who takes the first seat that is offered, and none after
// that, and a model.
func newClient(hooks *hook.Manager) *mcp.Client {
	var asked sync.Map
	return mcpaudit.NewClient(hooks, &mcp.Implementation{Name: "agent", Version: "3"}, &mcp.ClientOptions{
		ElicitationHandler: func(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			if _, again := asked.LoadOrStore(req.Session, true); again {
				return &mcp.ElicitResult{Action: "decline"}, nil
			}
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"seat": "14C"}}, nil
		},
		CreateMessageWithToolsHandler: func(context.Context, *mcp.CreateMessageWithToolsRequest) (*mcp.CreateMessageWithToolsResult, error) {
			return &mcp.CreateMessageWithToolsResult{Role: "assistant", Model: "small-1", StopReason: "endTurn", Content: []mcp.Content{&mcp.TextContent{Text: "All is well."}}}, nil
		},
	})
}

// use does one of everything.
func use(ctx context.Context, t *testing.T, cs *mcp.ClientSession) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	_, err := cs.ListTools(ctx, nil)
	ok(err)
	params := &mcp.CallToolParams{Name: "add", Arguments: map[string]any{"a": 1, "b": 2, "authorization": "Bearer secret-argument"}, Meta: mcp.Meta{"example.com/note": "kept", "progressToken": 1}}
	if _, err = cs.CallTool(ctx, params); err == nil { // the schema has no such argument
		_, err = cs.CallTool(ctx, &mcp.CallToolParams{Name: "add", Arguments: map[string]any{"a": 1, "b": 2}})
	}
	ok(err)
	if params.Meta["traceparent"] != nil {
		t.Error("the caller's params were changed")
	}
	for _, name := range []string{"fail", "book", "book", "summarise"} {
		_, err = cs.CallTool(ctx, &mcp.CallToolParams{Name: name})
		ok(err)
	}
	if _, err = cs.CallTool(ctx, &mcp.CallToolParams{Name: "nobody"}); err == nil {
		t.Error("a tool that is not there was called")
	}
	_, err = cs.ReadResource(ctx, &mcp.ReadResourceParams{URI: "file:///policy.txt"})
	ok(err)
	if _, err = cs.ReadResource(ctx, &mcp.ReadResourceParams{URI: "file:///nothing.txt"}); err == nil {
		t.Error("a resource that is not there was read")
	}
	_, err = cs.GetPrompt(ctx, &mcp.GetPromptParams{Name: "greet", Arguments: map[string]string{"name": "Ada"}})
	ok(err)
}

// TestEverythingIsRecordedOnBothSides: real clients and servers, in memory with the
// newest protocol and with an older one, over stdio with the server a process of its
// own, and over streamable HTTP with a bearer token. What each side records is pinned
// whole, the two trees are one, and no credential is in either trail.
func TestEverythingIsRecordedOnBothSides(t *testing.T) {
	connect := map[string]func(t *testing.T, ctx context.Context, c *mcp.Client, s *side) (*mcp.ClientSession, error){
		"memory": func(_ *testing.T, ctx context.Context, c *mcp.Client, s *side) (*mcp.ClientSession, error) {
			ct, st := mcp.NewInMemoryTransports()
			if _, err := newServer(s.hooks).Connect(ctx, st, nil); err != nil {
				return nil, err
			}
			return c.Connect(ctx, ct, nil)
		},
		"memory-2025-06-18": func(_ *testing.T, ctx context.Context, c *mcp.Client, s *side) (*mcp.ClientSession, error) {
			ct, st := mcp.NewInMemoryTransports()
			if _, err := newServer(s.hooks).Connect(ctx, st, nil); err != nil {
				return nil, err
			}
			return c.Connect(ctx, ct, &mcp.ClientSessionOptions{ProtocolVersion: "2025-06-18"})
		},
		"stdio": func(t *testing.T, ctx context.Context, c *mcp.Client, s *side) (*mcp.ClientSession, error) {
			s.path += ".stdio"
			program, err := os.Executable()
			if err != nil {
				return nil, err
			}
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), serverTrail+"="+s.path)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			t.Cleanup(func() {
				if stderr.Len() > 0 {
					t.Errorf("the server says: %s", stderr.Bytes())
				}
			})
			return c.Connect(ctx, &mcp.CommandTransport{Command: cmd}, nil)
		},
		"http":           overHTTP(nil),
		"http-stateless": overHTTP(&mcp.StreamableHTTPOptions{Stateless: true}),
	}
	for name, connect := range connect {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			client, server := newSide(t, "client", nil), newSide(t, "server", nil)
			cs, err := connect(t, ctx, newClient(client.hooks), server)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = client.hooks.Do(ctx, hook.AgentLoop, hook.Data{}, func(ctx context.Context) (any, error) {
				use(ctx, t, cs)
				return nil, nil
			})
			if err := cs.Close(); err != nil {
				t.Error(err)
			}
			mine, theirs := entries(t, client.path), entries(t, server.path)
			// Over stdio the newest protocol is spoken too, and the same recorded.
			golden(t, strings.Replace(name, "stdio", "memory", 1)+".golden", mine, theirs)
			oneTree(t, mine, theirs)
			for _, path := range []string{client.path, server.path} {
				log, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(log, []byte("secret")) {
					t.Errorf("%s has a credential", path)
				}
			}
		})
	}
}

// overHTTP connects over streamable HTTP, with a token.
func overHTTP(opts *mcp.StreamableHTTPOptions) func(*testing.T, context.Context, *mcp.Client, *side) (*mcp.ClientSession, error) {
	return func(t *testing.T, ctx context.Context, c *mcp.Client, s *side) (*mcp.ClientSession, error) {
		server := newServer(s.hooks)
		verify := func(_ context.Context, token string, _ *http.Request) (*auth.TokenInfo, error) {
			if token != "secret-token" {
				return nil, auth.ErrInvalidToken
			}
			return &auth.TokenInfo{UserID: "u-7", Expiration: time.Now().Add(time.Hour)}, nil
		}
		h := httptest.NewServer(auth.RequireBearerToken(verify, nil)(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, opts)))
		t.Cleanup(h.Close)
		return c.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: h.URL, HTTPClient: &http.Client{Transport: bearer{}}, DisableStandaloneSSE: true}, nil)
	}
}

// bearer sends a token with every request.
type bearer struct{}

func (bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer secret-token")
	req.Header.Set("User-Agent", "agent/3")
	return http.DefaultTransport.RoundTrip(req)
}

// oneTree: of what was done in the agent's loop every server's entry is below the
// client's entry of the same request, or the other way round.
func oneTree(t *testing.T, client, server []audit.Entry) {
	t.Helper()
	trace := ""
	spans := map[string]audit.Entry{}
	for _, e := range append(append([]audit.Entry{}, client...), server...) {
		if e.EventType == audit.AgentLoopEnd {
			trace = e.TraceID
		}
		spans[e.SpanID] = e
	}
	inLoop := 0
	for _, e := range server {
		method := func(e audit.Entry) string {
			about, _ := e.Metadata.Get("mcp")
			o, _ := about.Object()
			return o.Text("method")
		}
		if e.TraceID != trace {
			if m := method(e); m != "initialize" && m != "server/discover" {
				t.Errorf("not in the client's trace: %s", e.Line())
			}
			continue
		}
		inLoop++
		above, ok := spans[e.ParentSpanID]
		if !ok || above.TraceID != trace || e.AgentID == above.AgentID && method(e) == method(above) {
			t.Errorf("below %q: %s", above.Action, e.Line())
		}
	}
	for _, e := range client {
		if _, ok := spans[e.ParentSpanID]; e.TraceID == trace && !ok && e.ParentSpanID != "" {
			t.Errorf("below nothing: %s", e.Line())
		}
	}
	if inLoop < 10 {
		t.Errorf("%d entries of the server in the loop", inLoop)
	}
}

// golden pins entries, every field but those that differ each time. Spans have the
// number of their first mention.
func golden(t *testing.T, name string, sides ...[]audit.Entry) {
	t.Helper()
	var b bytes.Buffer
	known := map[string]string{}
	number := func(id, kind string) string {
		if id != "" && known[id] == "" {
			known[id] = fmt.Sprintf("%s-%d", kind, len(known)+1)
		}
		return known[id]
	}
	for _, all := range sides {
		for _, e := range all {
			var m map[string]any
			if err := json.Unmarshal(e.Line(), &m); err != nil {
				t.Fatal(err)
			}
			for _, member := range []string{"timestamp", "duration_ms", "event_id", "recorded_at"} {
				delete(m, member)
			}
			m["trace_id"] = number(e.TraceID, "trace")
			m["span_id"] = number(e.SpanID, "span")
			if e.ParentSpanID != "" {
				m["parent_span_id"] = number(e.ParentSpanID, "span")
			}
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(text, '\n'))
		}
		b.WriteString("\n")
	}
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s is not what it was; see the difference after go test -update", name)
	}
}

// pair is a client and a server in memory.
func pair(t *testing.T, client *mcp.Client, server *mcp.Server) *mcp.ClientSession {
	t.Helper()
	ct, st := mcp.NewInMemoryTransports()
	if _, err := server.Connect(t.Context(), st, nil); err != nil {
		t.Fatal(err)
	}
	cs, err := client.Connect(t.Context(), ct, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cs.Close() })
	return cs
}

// briefs are the entries of a request, in short.
func briefs(t *testing.T, path, method string) (all []string) {
	t.Helper()
	for _, e := range entries(t, path) {
		about, _ := e.Metadata.Get("mcp")
		o, _ := about.Object()
		if o.Text("method") == method {
			text := ""
			if e.Error != nil {
				text = *e.Error
			}
			all = append(all, strings.TrimSpace(fmt.Sprint(e.Action, " ", e.Success, " ", e.Outcome, " ", text)))
		}
	}
	return all
}

// A call whose caller gives up is cancelled on both sides.
func TestACancelledCall(t *testing.T) {
	client, server := newSide(t, "client", nil), newSide(t, "server", nil)
	cs := pair(t, newClient(client.hooks), newServer(server.hooks))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := cs.CallTool(ctx, &mcp.CallToolParams{Name: "wait"}); err == nil {
		t.Error("it was not cancelled")
	}
	if got := briefs(t, client.path, "tools/call"); len(got) != 1 || !strings.HasPrefix(got[0], "tool_use:wait false timeout") {
		t.Errorf("%q", got)
	}
	for range 500 { // the server is told without being waited for
		if got := briefs(t, server.path, "tools/call"); len(got) == 1 && strings.HasPrefix(got[0], "tool_use:wait false") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%q", briefs(t, server.path, "tools/call"))
}

// With FailClosed nothing is done that can't be recorded, and the peer is not told
// what is wrong with the trail.
func TestFailClosed(t *testing.T) {
	for _, closed := range []string{"client", "server"} {
		t.Run(closed, func(t *testing.T) {
			sides := map[string]*side{}
			for _, name := range []string{"client", "server"} {
				s, err := open(filepath.Join(t.TempDir(), "audit.jsonl"), name, &hook.AuditOptions{FailClosed: true})
				if err != nil {
					t.Fatal(err)
				}
				defer s.close() // that of what is closed already says so
				sides[name] = s
			}
			client, server := sides["client"], sides["server"]
			cs := pair(t, newClient(client.hooks), newServer(server.hooks))
			if err := sides[closed].trail.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "add", Arguments: numbers{1, 2}})
				if err == nil || closed == "client" && !errors.Is(err, hook.ErrFailClosed) {
					t.Errorf("%v", err)
				}
				if closed == "server" && (!strings.Contains(err.Error(), hook.ErrFailClosed.Error()) || strings.Contains(err.Error(), "closed")) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

// A panic of what is called is the entry's error, and goes on.
func TestAPanic(t *testing.T) {
	client, server := newSide(t, "client", nil), newSide(t, "server", nil)
	c := newClient(client.hooks)
	c.AddSendingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler { return next })
	s := mcp.NewServer(&mcp.Implementation{Name: "desk"}, nil)
	s.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (res mcp.Result, err error) {
			if method != "tools/call" {
				return next(ctx, method, req)
			}
			panic("secret")
		}
	})
	mcpaudit.RecordServer(server.hooks, s)
	s.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (res mcp.Result, err error) {
			defer func() {
				if p := recover(); p != nil {
					err = errors.New("recovered")
				}
			}()
			return next(ctx, method, req)
		}
	})
	cs := pair(t, c, s)
	if _, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "x"}); err == nil || !strings.Contains(err.Error(), "recovered") {
		t.Errorf("%v", err)
	}
	if got := briefs(t, server.path, "tools/call"); len(got) != 1 || got[0] != "tool_use:x false  panic" {
		t.Errorf("%q", got)
	}
}

// What a peer says of the trace is taken if it is of the form, and nothing else.
func TestWhatAPeerSaysOfTheTrace(t *testing.T) {
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	server := newSide(t, "server", nil)
	cs := pair(t, mcp.NewClient(&mcp.Implementation{Name: "other"}, nil), newServer(server.hooks))
	said := []struct {
		parent any
		taken  bool
	}{
		{"00-" + trace + "-" + span + "-01", true},
		{"cc-" + trace + "-" + span + "-01-more", true},
		{"ff-" + trace + "-" + span + "-01", false},
		{"00-" + strings.ToUpper(trace) + "-" + span + "-01", false},
		{"00-" + strings.Repeat("0", 32) + "-" + span + "-01", false},
		{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01", false},
		{"00-" + trace + "-" + span, false},
		{strings.Repeat("-", 100), false},
		{7, false},
		{nil, false},
	}
	for _, s := range said {
		if _, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "add", Arguments: numbers{1, 2}, Meta: mcp.Meta{"traceparent": s.parent}}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, e := range entries(t, server.path) {
		if e.Action != "tool_use:add" {
			continue
		}
		if want := said[n]; (e.TraceID == trace && e.ParentSpanID == span) != want.taken || !want.taken && e.ParentSpanID != "" {
			t.Errorf("%v: %s", want.parent, e.Line())
		}
		n++
	}
	if n != len(said) {
		t.Errorf("%d entries", n)
	}
}

// Many calls at once, of clients that share their params, each have their own
// entry, below the run that they are of.
func TestManyAtOnce(t *testing.T) {
	const runs, calls = 8, 10
	client, server := newSide(t, "client", nil), newSide(t, "server", nil)
	cs := pair(t, newClient(client.hooks), newServer(server.hooks))
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() {
			_, _ = client.hooks.Do(t.Context(), hook.AgentLoop, hook.Data{Metadata: map[string]any{"user_id": fmt.Sprint(i)}}, func(ctx context.Context) (any, error) {
				for n := range calls {
					if _, err := cs.CallTool(ctx, &mcp.CallToolParams{Name: "add", Arguments: numbers{i, n}}); err != nil {
						t.Error(err)
					}
				}
				return nil, nil
			})
		})
	}
	wg.Wait()
	traces := map[string]map[string]bool{}
	spans := map[string]string{}
	for _, e := range entries(t, client.path) {
		spans[e.SpanID] = e.TraceID
	}
	for _, e := range entries(t, server.path) {
		if e.Action != "tool_use:add" {
			continue
		}
		if spans[e.ParentSpanID] != e.TraceID {
			t.Fatalf("%s", e.Line())
		}
		a, _ := e.Inputs.Get("a")
		if traces[e.TraceID] == nil {
			traces[e.TraceID] = map[string]bool{}
		}
		traces[e.TraceID][string(a.JSON())] = true
	}
	if len(traces) != runs {
		t.Errorf("%d traces", len(traces))
	}
	for trace, of := range traces {
		if len(of) != 1 {
			t.Errorf("%s has calls of %v", trace, of)
		}
	}
}
