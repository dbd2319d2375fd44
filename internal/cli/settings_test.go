package cli

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestConfigFile(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want string // "flag=value" a line, or the error
	}{
		{"", ""},
		{"# only a comment\n", ""},
		{"---\n", ""},
		{"trail:\n", ""},
		{"trail:\n  log: /a b.jsonl\n  max_line: 4096\n", "log=/a b.jsonl max-line=4096"},
		{"trail: {checkpoint_to: [a, 'exec:b c']}", "checkpoint-to=a checkpoint-to=exec:b c"},
		{"trail:\n  checkpoint_to: syslog:\n", "line 2"},
		{"trail:\n  checkpoint_to: 'syslog:'\n", "checkpoint-to=syslog:"},
		{"trail:\n  log:\n", "line 2: a single value is needed here"},
		{"trail:\n  log: [a]\n", "line 2: a single value is needed here"},
		{"trail:\n  config: x\n", `line 2: unknown key "config" in section trail`},
		{"trail:\n  checkpoint_to: [[a]]\n", "line 2: the items of this list are plain text"},
		{"trail: 7\n", "line 1: a mapping (key: value) is needed here"},
		{"- trail\n", "line 1: a mapping (key: value) is needed here"},
		{"\ntrale:\n  log: x\n", `line 2: unknown section "trale"; there are trail, policy, access, archive and anchors`},
		{"\"\\e[2J\": 1\n", `line 1: unknown section "\x1b[2J"; there are trail, policy, access, archive and anchors`},
		{"a: 1\n---\nb: 2\n", "more than one document"},
		{"x: &x 1\ntrail: *x\n", "line 1: unknown section"},
		{"trail: {log: a, log: b}", `line 1: "log" stands here a second time`},
		{"trail:\n\tlog: a\n", "line 2"},
	} {
		values, err := parsed([]byte(tc.in))
		var got []string
		for _, v := range values {
			got = append(got, v.flag+"="+v.value)
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = err.Error()
		}
		if text != tc.want && (err == nil || !strings.HasPrefix(text, tc.want) || tc.want == "") {
			t.Errorf("%q: %s, want %s", tc.in, text, tc.want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("trail:\n  log: a\n  checkpoint_to: [x, y]\n")
	f.Add("trail: {durability: written}\n---\nx")
	f.Add("a: &a [*a]")
	f.Add("policy:\n  profile: pci\n  actions: {email: hash, card: zap}\n  detectors: [{name: x, class: secret, pattern: '('}]\n  fields: [{path: /inputs/**/a, action: drop, tools: [x]}]\n")
	f.Add("policy:\n  only: [{paths: [/inputs/a]}]\n  tools: [{has: [/inputs/a], phi: true, resource: {type: p, id: [/inputs/a]}}]\n  purposes: {declared: [a], otherwise: 7}\n")
	f.Add("policy: &p {tools: [*p]}\n")
	f.Add("access:\n  allowed_roles: [auditor, desk]\n  roles:\n    desk: {permissions: [read_masked], agents: [a*], event_types: [X], fields: [/inputs]}\n  users: {alice: [auditor], 'uid:1000': [desk]}\n  groups: {dpo: [privacy_officer]}\n  agents: {bob: [qa-*]}\n")
	f.Add("access:\n")
	f.Add("access: {enabled: false}\n")
	f.Add("access:\n  users: {a.b: [boss], c: 7}\n  roles: {auditor: {permissions: [read]}, x: {}}\n")
	f.Add("\x00\xff")
	f.Fuzz(func(t *testing.T, s string) {
		values, err := parsed([]byte(s))
		if err != nil && values != nil {
			t.Fatal("values beside an error")
		}
		again, errAgain := parsed([]byte(s))
		if !reflect.DeepEqual(values, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatal("not the same twice")
		}
		scan := scanConfig([]byte(s))
		wrong := scan.wrong
		if c := scan.access; c != nil {
			if err := c.Check(); err != nil || len(wrong) == 0 && !c.Enabled && !strings.Contains(s, "enabled") {
				t.Fatalf("%q gives %+v: %v", s, c, err)
			}
		}
		for _, p := range wrong {
			if p.Problem == "" || p.Line < 0 || p.Column > 0 && p.Line == 0 {
				t.Fatalf("%+v is no problem", p)
			}
		}
		for _, v := range values {
			if !slices.Contains(settingFlags, v.flag) || v.line < 1 || v.column < 1 {
				t.Fatalf("%+v is no setting", v)
			}
		}
	})
}

func TestBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"1": 1, "65536": 65536, "64KiB": 65536, "256MiB": 256 << 20, "1GiB": 1 << 30,
		"": 0, "0": 0, "-1": 0, "1KB": 0, "1.5MiB": 0, "KiB": 0, "99999999999999999999": 0, "9999999999999GiB": 0, "+1": 0, "1 KiB": 0,
	} {
		got, err := parseBytes(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("parseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 256 << 20: "256 MiB", 3 << 30: "3 GiB"} {
		if got := formatBytes(in); got != want {
			t.Errorf("formatBytes(%d) = %s, want %s", in, got, want)
		}
	}
}

func TestUnknownEnvironmentIsNamed(t *testing.T) {
	got := unknownEnvironment([]string{
		"KAIZEN_AUDIT_LOG=x", "KAIZEN_AUDIT_BIN=x", "KAIZEN_AUDIT_STATE=x", "KAIZEN_ENVIRONMENT=x", "AUDIT_LOG_ENCRYPTION_KEY=x",
		"KAIZEN_AUDIT_Z=1", "KAIZEN_AUDIT_A=1", "KAIZEN_AUDIT_UNSET=", "PATH=/bin",
	})
	if want := []string{"KAIZEN_AUDIT_A", "KAIZEN_AUDIT_Z"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func parsed(data []byte) ([]configValue, error) {
	scan := scanConfig(data)
	if len(scan.wrong) > 0 {
		return nil, scan.wrong[0]
	}
	return scan.values, nil
}
