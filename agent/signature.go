package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Inputs are what a run is given, and Outputs what it gives, by the names of the
// signature's fields.
type (
	Inputs  = map[string]any
	Outputs = map[string]any
)

// Field is an input or an output.
type Field struct {
	Name        string
	Description string
	// Default is an input's value where a run is given none; without one the
	// input must be given.
	Default any
}

// Signature says what an agent is given and what it has to give.
//
// The system prompt is Instructions. With one input, that is what the user says;
// with more, a line for each. With one output, that is the answer; with more the
// prompt asks for a JSON object of them.
type Signature struct {
	Instructions    string
	Inputs, Outputs []Field
}

// SessionID is the input that names the conversation, for Config.Memory. It is
// also every entry's metadata.session_id.
const SessionID = "session_id"

func (s *Signature) check() error {
	if len(s.Inputs) == 0 || len(s.Outputs) == 0 {
		return errors.New("signature: it needs an input and an output")
	}
	for _, fields := range [][]Field{s.Inputs, s.Outputs} {
		seen := map[string]bool{}
		for _, f := range fields {
			if f.Name == "" || seen[f.Name] {
				return fmt.Errorf("signature: field %q: a name is needed, once", f.Name)
			}
			seen[f.Name] = true
		}
	}
	return nil
}

// system is the system prompt; empty means none.
func (s *Signature) system() string {
	if len(s.Outputs) == 1 {
		return s.Instructions
	}
	var b strings.Builder
	if s.Instructions != "" {
		b.WriteString(s.Instructions + "\n\n")
	}
	b.WriteString("Answer with a JSON object and nothing else. Its members:")
	for _, f := range s.Outputs {
		fmt.Fprintf(&b, "\n- %q", f.Name)
		if f.Description != "" {
			b.WriteString(": " + f.Description)
		}
	}
	return b.String()
}

// user is what the user says.
func (s *Signature) user(in Inputs) (string, error) {
	var lines []string
	known := map[string]bool{SessionID: true}
	for _, f := range s.Inputs {
		known[f.Name] = true
		v, ok := in[f.Name]
		if !ok {
			if v = f.Default; v == nil {
				return "", fmt.Errorf("input %s: it is missing", f.Name)
			}
		}
		text, ok := v.(string)
		if !ok {
			b, err := json.Marshal(v)
			if err != nil {
				return "", fmt.Errorf("input %s: it has no JSON text", f.Name)
			}
			text = string(b)
		}
		if len(s.Inputs) > 1 {
			text = f.Name + ": " + text
		}
		lines = append(lines, text)
	}
	for name := range in {
		if !known[name] {
			return "", fmt.Errorf("input %s: the signature has no such input", name)
		}
	}
	return strings.Join(lines, "\n"), nil
}

// ErrAnswer is in the error of a run whose model did not answer as the signature
// wants it.
var ErrAnswer = errors.New("the model's answer is not what the signature wants")

// outputs reads an answer. With an error it is all there is, under "answer".
func (s *Signature) outputs(answer string) (Outputs, error) {
	if len(s.Outputs) == 1 {
		return Outputs{s.Outputs[0].Name: answer}, nil
	}
	raw := Outputs{"answer": answer}
	text := strings.TrimSpace(answer)
	if inner, ok := strings.CutPrefix(text, "```"); ok { // models fence it whatever they are told
		inner = strings.TrimPrefix(inner, "json")
		text = strings.TrimSuffix(strings.TrimSpace(inner), "```")
	}
	var out Outputs
	if err := json.Unmarshal([]byte(text), &out); err != nil || out == nil {
		return raw, fmt.Errorf("%w: it is no JSON object", ErrAnswer)
	}
	for _, f := range s.Outputs {
		if _, ok := out[f.Name]; !ok {
			return raw, fmt.Errorf("%w: it has no %s", ErrAnswer, f.Name)
		}
	}
	for name := range out {
		if !slices.ContainsFunc(s.Outputs, func(f Field) bool { return f.Name == name }) {
			delete(out, name)
		}
	}
	return out, nil
}
