package agent

import (
	"errors"
	"reflect"
	"testing"
)

func TestAnswers(t *testing.T) {
	two := Signature{Outputs: []Field{{Name: "a"}, {Name: "b"}}}
	want := Outputs{"a": "x", "b": []any{1.0}}
	for _, answer := range []string{
		`{"a":"x","b":[1]}`, " \n{\"b\":[1],\"a\":\"x\",\"c\":{}}\n", "```json\n{\"a\":\"x\",\"b\":[1]}\n```", "```\n{\"a\":\"x\",\"b\":[1]}```\n",
	} {
		if out, err := two.outputs(answer); err != nil || !reflect.DeepEqual(out, want) {
			t.Errorf("%q: %v %v", answer, out, err)
		}
	}
	for _, answer := range []string{
		"", "null", "[]", `"a"`, `{"a":1}`, `{"a":1,"b":2`, `{"a":1,"b":2} {}`, "```", "``````", "```json", "Sure: {\"a\":1,\"b\":2}", "{\"a\":1,\"b\":\"\xff",
	} {
		if out, err := two.outputs(answer); !errors.Is(err, ErrAnswer) || out["answer"] != answer {
			t.Errorf("%q: %v %v", answer, out, err)
		}
	}
	one := Signature{Outputs: []Field{{Name: "a"}}}
	for _, answer := range []string{"", "null", `{"a":1}`} {
		if out, err := one.outputs(answer); err != nil || out["a"] != answer {
			t.Errorf("%q: %v %v", answer, out, err)
		}
	}
}
