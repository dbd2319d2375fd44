package claudecode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const testCommand = `/usr/local/bin/kaizen-audit hook claude-code --log '/home/me/my logs/a.jsonl'`

var settingsFiles = []string{
	"{}", "{ }", "{\n}\n", "{\n}", "{}\n", "\n {\n\n}",
	`{"a":1}`, `{"a":1,"b":[1,2]}` + "\n", `{ "a": 1 }`,
	"{\n  \"a\": 1\n}\n", "{\n\t\"a\": 1,\n\t\"b\": {}\n}", "{\r\n    \"a\": 1\r\n}\r\n",
	`{"hooks":{}}`, `{"hooks": { }}`, "{\n  \"hooks\": {\n  }\n}\n",
	`{"hooks":{"Stop":[]}}`, `{"hooks":{"Stop":[ ]}}`, "{\"hooks\":{\"Stop\":[\n]}}", `{"hooks":{"Stop":[], "PreToolUse":[]}, "z": null}`,
	`{"hooks":{"Other":[{"hooks":[{"type":"command","command":"x"}]}]}}`,
	"{\n  \"model\": \"opus\",\n  \"hooks\": {\n    \"PreToolUse\": [\n      {\n        \"matcher\": \"Bash\",\n        \"hooks\": [\n          {\n            \"type\": \"command\",\n            \"command\": \"\\u0022$CLAUDE_PROJECT_DIR\\u0022/check.sh\"\n          }\n        ]\n      }\n    ]\n  },\n  \"permissions\": {\n    \"allow\": [\"Bash(ls:*)\"]\n  }\n}\n",
	`{"hooks":{"PreToolUse":[{"matcher":"Bash","hooks":[{"type":"command","command":"x"}]}]},"zähler":"ü€😀<>&"}`,
	`{"a":{"hooks":1},"b":"hooks","c":[{"hooks":{}}]}`,
}

func TestInstallAndUninstallLeaveEveryByteAsItWas(t *testing.T) {
	for _, before := range settingsFiles {
		in, err := Install([]byte(before), testCommand)
		if err != nil {
			t.Errorf("%q: %v", before, err)
			continue
		}
		again, err := Install(in, testCommand)
		if err != nil || !bytes.Equal(again, in) {
			t.Errorf("%q: a second installation changes it to\n%s", before, again)
		}
		other, err := Install(in, testCommand+".other")
		if err != nil || bytes.Count(other, []byte("a.jsonl'.other")) != len(Events) || bytes.Count(other, []byte("hook claude-code")) != len(Events) {
			t.Errorf("%q: another command gives\n%s", before, other)
		}
		for _, in := range [][]byte{in, other} {
			out, err := Uninstall(in)
			if err != nil || string(out) != before {
				t.Errorf("%q became %q over\n%s", before, out, in)
			}
		}
		wantInstalled(t, before, in)
	}
}

// wantInstalled checks that every event has our hook, and that nothing else
// has changed.
func wantInstalled(t *testing.T, before string, after []byte) {
	t.Helper()
	var was, is map[string]any
	if err := json.Unmarshal([]byte(before), &was); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(after, &is); err != nil {
		t.Errorf("%q became what is no JSON: %v\n%s", before, err, after)
		return
	}
	hooks := is["hooks"].(map[string]any)
	for _, event := range Events {
		groups := hooks[event].([]any)
		mine := groups[len(groups)-1].(map[string]any)
		want := map[string]any{"hooks": []any{map[string]any{"type": "command", "command": testCommand, "timeout": 5.0}}}
		if !reflect.DeepEqual(mine, want) {
			t.Errorf("%q: %s has %v", before, event, mine)
		}
		if groups = groups[:len(groups)-1]; len(groups) > 0 {
			hooks[event] = groups
		} else if old, ok := was["hooks"].(map[string]any); ok && old[event] != nil {
			hooks[event] = []any{}
		} else {
			delete(hooks, event)
		}
	}
	if was["hooks"] == nil {
		delete(is, "hooks")
	}
	if !reflect.DeepEqual(is, was) {
		t.Errorf("%q: %v was %v", before, is, was)
	}
}

func TestUninstallTakesOutOnlyWhatIsOurs(t *testing.T) {
	in, err := Install([]byte("{\n  \"a\": 1\n}\n"), testCommand)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody reformats it, and adds a hook beside one of ours.
	var v map[string]any
	if err := json.Unmarshal(in, &v); err != nil {
		t.Fatal(err)
	}
	stop := v["hooks"].(map[string]any)["Stop"].([]any)[0].(map[string]any)
	stop["hooks"] = append(stop["hooks"].([]any), map[string]any{"type": "command", "command": "mine"})
	in, err = json.MarshalIndent(v, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	out, err := Uninstall(in)
	if err != nil || !json.Valid(out) || bytes.Contains(out, []byte("hook claude-code")) || !bytes.Contains(out, []byte("mine")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestHooksOfOtherProgramsStay: also those that are called like ours.
func TestHooksOfOtherProgramsStay(t *testing.T) {
	const theirs = `{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"tool hook claude-code check"},{"type":"command","command":"/opt/my-hook claude-code --log x"}]}]}}`
	if out, err := Uninstall([]byte(theirs)); err != nil || string(out) != theirs {
		t.Errorf("%v\n%s", err, out)
	}
	for _, command := range []string{testCommand, "'/home/me/my tools/kaizen-audit' hook claude-code", "X=1 kaizen-audit hook claude-code", "'/opt/ka 2' hook claude-code --log a.jsonl"} {
		settings := fmt.Appendf(nil, `{"hooks":{ "Stop":[ {"hooks":[ {"type":"command","command":%q} ]} ]}}`, command)
		if out, err := Uninstall(settings); err != nil || bytes.Contains(out, []byte("command")) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

func TestSettingsThatAreNotUnderstoodAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                         "not a JSON object",
		`{"a":1`:                     "ends too early",
		"{\n  // why\n  \"a\": 1\n}": "line 2: not JSON",
		`{} {}`:                      "more than one",
		`{"hooks":[]}`:               "hooks is not an object",
		`{"hooks":{"Stop":{}}}`:      "hooks.Stop is not an array",
		`{"hooks":{},"hooks":{}}`:    `"hooks" stands there twice`,
		strings.Repeat("[", 5000):    "nested too deep",
	} {
		if out, err := Install([]byte(text), testCommand); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, %s", text, err, out)
		}
	}
}

func FuzzSettings(f *testing.F) {
	for _, s := range settingsFiles {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		clean, err := Uninstall(before)
		if err != nil {
			return
		}
		in, err := Install(clean, testCommand)
		if err != nil || len(bytes.TrimSpace(clean)) == 0 {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("%q became %q", clean, in)
		}
		if out, err := Uninstall(in); err != nil || !bytes.Equal(out, clean) {
			t.Fatalf("%q became %q over %q: %v", clean, out, in, err)
		}
	})
}
