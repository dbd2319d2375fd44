package cli

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show what the policy does, without recording",
		Long: `What may be written into the trail, and what is done with the rest: policy explain
shows the rules, policy test what they do to events.`,
		Example: `  kaizen-audit policy explain
  kaizen-audit policy test < events.jsonl`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("which one? there are test and explain")
			}
			return noSuchCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(a.policyTestCommand(), a.policyExplainCommand())
	return cmd
}

// policyInForce is the policy of the configuration file, else the one that the
// trail was last opened with, else the default.
func (a *app) policyInForce() (*policy.Policy, error) {
	if a.settings.policy != nil {
		return a.settings.policy, nil
	}
	return audit.StoredPolicy(a.settings.log)
}

func (a *app) policyExplainCommand() *cobra.Command {
	format := newChoice("text", "json")
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Show the rules in force, in their order, and where each comes from",
		Long: `Shows the rules that stand between an event and the trail, in the order in which
they are applied, and where each comes from: a line of the configuration file,
the policy that the trail was last opened with, a profile, or the default.`,
		Example: `  kaizen-audit policy explain
  kaizen-audit policy explain --config /etc/kaizen-audit.yaml --format json`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := a.policyInForce()
			if err != nil {
				return err
			}
			rules := p.Rules()
			for i := range rules {
				if rules[i].Path != nil {
					rules[i].From = a.settings.policyPlace(rules[i].Path)
				}
			}
			if format.value == "json" {
				return printJSON(a.stdout, map[string]any{"digest": p.Digest(), "rules": rules})
			}
			t := newTable(a.stdout, a.stdout, column{title: "STEP"}, column{title: "RULE", least: 8}, column{title: "ACTION", least: 8}, column{title: "ABOUT", least: 20}, column{title: "FROM", least: 8})
			for _, r := range rules {
				if err := t.row(text(r.Step), text(r.Rule), text(r.Action), text(r.About), text(r.From)); err != nil {
					return err
				}
			}
			return t.flush()
		},
	}
	addFormat(cmd, format)
	return cmd
}

// policyPlace is where a rule stands.
func (s *settings) policyPlace(path []string) string {
	if s.policyPlaces == nil {
		return "the trail"
	}
	n := s.policyPlaces.place(path)
	return s.config + ":" + strconv.Itoa(n.Line)
}

// tested is what policy test says of one event. Its JSON shape only grows.
type tested struct {
	Line int64 `json:"line"` // of the input, from 1
	// Event is what would be recorded, as it is read by record.
	Event json.RawMessage `json:"event,omitempty"`
	// Policy is the entry's member policy.
	Policy  json.RawMessage `json:"policy,omitempty"`
	Refused string          `json:"refused,omitempty"`
}

func (a *app) policyTestCommand() *cobra.Command {
	format := newChoice("text", "jsonl")
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Show what the policy would do to events from standard input",
		Long: `Reads events as record does, one JSON object a line, and shows what the policy
would do to each, by JSON pointer and rule. Nothing is recorded, and no trail
is needed. With --format jsonl each line has the event as it would be recorded.

Keyed hashes are made with a key of this run, not with the trail's. What a rule
would seal is shown as it is, and named. An event that would be refused makes
the exit code 4.`,
		Example: `  echo '{"event_type":"TOOL_USE","agent_id":"a","action":"tool_use:pay","inputs":{"card_number":"4111 1111 1111 1111"}}' | kaizen-audit policy test
  kaizen-audit policy test --config new.yaml --format jsonl < events.jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.policyInForce()
			if err != nil {
				return err
			}
			return a.testPolicy(cmd.Context(), p, format.value)
		},
	}
	addFormat(cmd, format)
	return cmd
}

func (a *app) testPolicy(ctx context.Context, p *policy.Policy, format string) error {
	t := newTable(a.stdout, a.stdout, column{title: "LINE", right: true}, column{title: "DONE"}, column{title: "WHERE", least: 12}, column{title: "RULES", least: 8})
	run := policy.Run{Tokens: newTestTokens()}
	lines := make(chan inputLines, 16)
	go readLines(ctx, a.stdin, inputLimit(entry.DefaultMaxLine), lines)
	for m := range lines {
		for _, l := range m.lines {
			if l.bytes == 0 && len(bytes.TrimSpace(l.text)) == 0 {
				continue
			}
			r := testEvent(p, run, l)
			if r.Refused != "" {
				a.partly = true
			}
			if format == "jsonl" {
				line, err := json.Marshal(r)
				if err != nil {
					return err
				}
				if _, err := a.stdout.Write(append(line, '\n')); err != nil {
					return err
				}
				continue
			}
			for _, row := range r.rows() {
				if err := t.row(text(strconv.FormatInt(r.Line, 10)), text(row[0]), text(row[1]), text(row[2])); err != nil {
					return err
				}
			}
		}
		if m.err != nil {
			return fmt.Errorf("read events: %w", m.err)
		}
	}
	if format == "jsonl" {
		return nil
	}
	return t.flush()
}

func testEvent(p *policy.Policy, run policy.Run, l inputLine) tested {
	r := tested{Line: l.number}
	if l.bytes > 0 {
		r.Refused = (&entry.LineTooLongError{Bytes: l.bytes, Max: entry.DefaultMaxLine}).Error()
		return r
	}
	ev, err := audit.ParseEvent(l.text)
	if err == nil {
		r.Event, r.Policy, err = p.AppendEvent(nil, &ev, run)
	}
	if err != nil {
		r.Event, r.Refused = nil, err.Error()
	}
	return r
}

// rows are what was done, where, and by which rules.
func (r tested) rows() [][3]string {
	if r.Refused != "" {
		return [][3]string{{"refused", "-", r.Refused}}
	}
	if r.Policy == nil {
		return [][3]string{{"unchanged", "-", "-"}}
	}
	rules := map[string][]string{}
	var rows [][3]string
	for name, v := range entry.Raw(r.Policy).All() {
		if o, ok := v.Object(); ok {
			for rule, pointers := range o.All() {
				var list []string
				_ = json.Unmarshal(pointers.JSON(), &list) // ours
				for _, p := range list {
					rules[p] = append(rules[p], rule)
				}
			}
			continue
		}
		var list []string
		_ = json.Unmarshal(v.JSON(), &list)
		for _, p := range list {
			rows = append(rows, [3]string{name, p, ""})
		}
	}
	for i := range rows {
		rows[i][2] = strings.Join(rules[rows[i][1]], ", ")
	}
	return rows
}

// testTokens makes keyed hashes of a key that nobody keeps.
type testTokens struct{ key [32]byte }

func newTestTokens() *testTokens {
	t := &testTokens{}
	_, _ = rand.Read(t.key[:]) // never fails
	return t
}

func (t *testTokens) Token(value string, _ bool) (string, error) {
	m := hmac.New(sha256.New, t.key[:])
	m.Write([]byte(value))
	return "hmac:" + base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:24]), nil
}

func (t *testTokens) IsToken(string) bool { return false }
