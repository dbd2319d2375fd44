package advice_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
)

func TestTheTextHasBothAndSplitPartsThem(t *testing.T) {
	err := fmt.Errorf("open a: %w", advice.For(fmt.Errorf("gone: %w", io.EOF), "make it: %s", advice.Quote("a b")))
	if got, want := err.Error(), "open a: gone: EOF; make it: 'a b'"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if text, what := advice.Split(err); text != "open a: gone: EOF" || what != "make it: 'a b'" {
		t.Errorf("%q, %q", text, what)
	}
	if !errors.Is(err, io.EOF) {
		t.Error("the cause is lost")
	}
	if text, what := advice.Split(io.EOF); text != "EOF" || what != "" {
		t.Errorf("%q, %q", text, what)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/var/log/a.jsonl": "/var/log/a.jsonl", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "~": "'~'"} {
		if got := advice.Quote(in); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
	}
}
