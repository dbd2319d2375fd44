package entry

import "testing"

func TestAtFollowsAPointer(t *testing.T) {
	e, err := Parse([]byte(`{"agent_id":"a","inputs":{"patient_id":"P1","a/b":{"m~n":[1,{"id":"P2"}]},"":true,"x y":null},"outputs":{"0":"zero","value":"{\"user\":{\"id\":\"u1\"},\"l\":\"[7]\"}","t":"{no","s":"[1"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for pointer, want := range map[string]string{
		"/inputs/patient_id": `"P1"`, "/inputs/a~1b/m~0n/1/id": `"P2"`, "/inputs/a~1b/m~0n/0": "1", "/inputs/": "true",
		"/inputs/x y": "null", "/outputs/0": `"zero"`, "/outputs/value/user/id": `"u1"`, "/outputs/value/l/0": "7",
		"/outputs/t/x": "", "/outputs/s/0": "",
		"/nothing": "", "inputs": "", "/inputs/patient_id/0": "", "/inputs/a~1b/m~0n/2": "", "/inputs/a~1b/m~0n/01": "",
		"/inputs/a~1b/m~0n/-": "", "/inputs/a~1b/m~0n/-1": "", "/inputs//": "", "/": "",
	} {
		v, ok := e.At(pointer)
		if string(v.JSON()) != want || ok != (want != "") {
			t.Errorf("%s: %s, %v, want %s", pointer, v.JSON(), ok, want)
		}
	}
	if v, ok := e.At(""); !ok || string(v.JSON()) != string(e.Line()) {
		t.Error("the empty pointer is not the whole entry")
	}
}

func FuzzAt(f *testing.F) {
	f.Add([]byte(`{"inputs":{"a":[{"b":1}]}}`), "/inputs/a/0/b")
	f.Add([]byte(`{"inputs":{"~1/":[[]]}}`), "/inputs/~01~1/0/0")
	f.Add([]byte(`{"":1}`), "/")
	f.Fuzz(func(t *testing.T, line []byte, pointer string) {
		e, err := Parse(line)
		if err != nil {
			return
		}
		if v, ok := e.At(pointer); ok != (len(v.JSON()) > 0) {
			t.Errorf("%q: %q, %v", pointer, v.JSON(), ok)
		}
	})
}
