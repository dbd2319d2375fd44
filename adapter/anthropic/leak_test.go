package anthropicaudit_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/kaizen-audit/kaizen-audit/internal/canary"
)

// What must not enter a trail is in no file of it, though the SDK sends and
// receives it.
func TestNothingLeaks(t *testing.T) {
	object, err := json.Marshal(canary.Object())
	if err != nil {
		t.Fatal(err)
	}
	said, _ := json.Marshal(canary.Text())
	var a *agent
	_ = t.TempDir()    // there longer than what is cleaned up below
	t.Cleanup(func() { // after the trail was closed
		var s canary.Searched
		if s.Dir(t, "closed", filepath.Dir(a.path)); s.Files < 3 {
			t.Errorf("%d files were searched", s.Files)
		}
	})
	a = newAgent(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"id":"m","type":"message","role":"assistant","model":"m-1","stop_reason":"tool_use","content":[{"type":"text","text":` + string(said) +
			`},{"type":"tool_use","id":"t1","name":"pay","input":` + string(object) + `}],"usage":{"input_tokens":2,"output_tokens":1}}`))
	}, option.WithHeader("X-Api-Key", canary.All[4].Core))
	if _, err := a.client.Messages.New(t.Context(), ask(canary.Text())); err != nil {
		t.Fatal(err)
	}
	entries := a.entries(t)
	if len(entries) != 1 || bytes.Count(entries[0].Line(), []byte("****")) < 2*len(canary.All) {
		t.Fatalf("%d entries, or too little is masked", len(entries))
	}
}
