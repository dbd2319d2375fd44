package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/access"
)

// documentedCommands are the commands of docs/access.md by what they need, and those
// for which a part of reading is enough.
func documentedCommands(t *testing.T) (needs map[string]access.Permission, inPart map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("../../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## What needs which permission\n")
	section, _, _ = strings.Cut(section, "\n## ")
	needs, inPart = map[string]access.Permission{}, map[string]bool{}
	first := true
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.Contains(line, "---") || strings.Contains(line, "| needs |") {
			continue
		}
		need := access.None
		if parts := strings.Split(cells[1], "`"); len(parts) > 1 {
			need = access.Permission(parts[1])
		}
		for i, name := range strings.Split(cells[4], "`") {
			if i%2 == 0 {
				continue
			}
			if _, twice := needs[name]; twice {
				t.Errorf("%s is there twice", name)
			}
			needs[name], inPart[name] = need, first
		}
		first = false
	}
	return needs, inPart
}

// Each command by each role, and by none: allowed or denied as the documentation says;
// and it says so of every command that there is.
func TestRolesAndCommands(t *testing.T) {
	needs, inPart := documentedCommands(t)
	a := &app{stdout: newTerminal(&bytes.Buffer{}), stderr: newTerminal(&bytes.Buffer{})}
	there := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		name := operation(cmd)
		// One that has others below it and does nothing by itself is no command.
		if cmd.HasParent() && (!cmd.HasSubCommands() || name == "import" || name == "retention") {
			there[name] = true
			if _, ok := needs[name]; !ok {
				t.Errorf("%s is not in docs/access.md", name)
			}
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	root := a.root()
	root.InitDefaultHelpCmd()
	walk(root)
	for name := range needs {
		if !there[name] {
			t.Errorf("there is no command %s", name)
		}
	}

	dir := t.TempDir()
	log := filepath.Join(dir, "a.jsonl")
	t.Setenv("KAIZEN_AUDIT_STATE", filepath.Join(dir, "state"))
	t.Chdir(dir)
	opts := &audit.Options{StateDir: filepath.Join(dir, "state"), NoSocket: true}
	if _, err := audit.Init(log, &audit.InitOptions{Profile: "gdpr", Options: *opts}); err != nil {
		t.Fatal(err)
	}
	roles := append(slices.Sorted(func(yield func(string) bool) {
		for name := range access.BuiltIn {
			if !yield(name) {
				return
			}
		}
	}), "")
	set := func(c *audit.Access) {
		t.Helper()
		o := *opts
		o.Access = c
		trail, err := audit.Open(log, &o)
		if err == nil {
			_, err = trail.Record(context.Background(), audit.Event{EventType: audit.ToolUse, AgentID: "a", TraceID: "t", Action: "x", Metadata: audit.Of(map[string]any{"user_id": "mia"})})
		}
		if err == nil {
			err = trail.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What a command is asked to do where it is allowed does nothing, or little.
	args := map[string][][]string{
		"query": {{}}, "trace": {{"t"}, {"--last"}}, "tail": {{}}, "report": {{}, {"--gaps"}}, "prove": {{"0"}}, "hold list": {{}},
		"export-user": {{"mia", "--out", "ROLE.zip"}}, "disclose": {{"99999", "--field", "/inputs", "--out", "x.json"}},
		"erase-user":      {{"mia", "--dry-run"}, {"--list"}, {"--due"}, {"--cancel", "none", "--reason", "x"}},
		"identity reveal": {{"nobody's", "--reason", "x"}},
		"keys rotate":     {{"--dek"}, {"--retire"}}, "keys backup": {{"--out", "ROLE.backup"}},
		"retention set": {{"3000"}}, "prune": {{"--dry-run"}}, "hold add": {{"--agent", "none", "--until", "2001-01-01", "--reason", "x"}},
		"hold lift": {{"none", "--reason", "x"}}, "archive push": {{"--to", "file://" + filepath.Join(dir, "archive")}},
		"archive prune": {{"--to", "file://" + filepath.Join(dir, "archive"), "--dry-run"}}, "rotate": {{}},
		"record": {{}}, "verify": {{}}, "info": {{}}, "retention": {{}}, "keys list": {{}}, "archive status": {{}},
	}
	for name, need := range needs {
		if _, ok := args[name]; !ok && need != access.None {
			t.Errorf("%s is in no test", name)
		}
	}
	for _, role := range roles {
		c := &audit.Access{Enabled: true, AllowedRoles: roles[:len(roles)-1], Agents: map[string][]string{audit.OSPrincipal().ID: {"a"}}}
		if role != "" {
			c.Users = map[string][]string{audit.OSPrincipal().ID: {role}}
		}
		set(c)
		for name, ways := range args {
			for _, way := range ways {
				way = slices.Clone(way)
				for i := range way {
					way[i] = strings.Replace(way[i], "ROLE", "of-"+role, 1)
				}
				var out, errs bytes.Buffer
				code := Main(t.Context(), slices.Concat(strings.Fields(name), way, []string{"--log", log}), strings.NewReader(""), &out, &errs)
				of := access.BuiltIn[role].Permissions
				may := needs[name] == access.None || slices.Contains(of, needs[name]) || inPart[name] && slices.Contains(of, access.Masked)
				if got := code != exitDenied; got != may || code == exitUsage {
					t.Errorf("%s %v by %q: exit code %d, want allowed %v\n%s%s", name, way, role, code, may, out.Bytes(), errs.Bytes())
				}
				if !may && out.Len() > 0 {
					t.Errorf("%s %v by %q shows %s", name, way, role, out.Bytes())
				}
			}
		}
	}
}
