package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func newTestSubject(name byte) Subject {
	return Subject{strings.Repeat(string(name), HandleSize), bytes.Repeat([]byte{name}, KeySize)}
}

func testPlace() Place {
	return Place{"example.com/log", "019a2010-b3c3-7abc-8def-0123456789ab", "/inputs"}
}

func TestSealingAndOpeningIsTheIdentity(t *testing.T) {
	subjects := []Subject{newTestSubject('b'), newTestSubject('a'), newTestSubject('C')}
	random := make([]byte, 3000)
	rand.Read(random)
	for _, value := range []string{
		`null`, `0`, `-1.50e+300`, `true`, `""`, `{}`, `{"query":"hotels in Lisbon"}`,
		`"` + strings.Repeat("é", 500) + `"`,
		fmt.Sprintf(`{"hex":"%x"}`, random),
		`[` + strings.Repeat(`{"status":"ok"},`, 5000) + `0]`,
	} {
		p := testPlace()
		text, err := SealField(p, subjects, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		e, err := ParseEnvelope(text)
		if err != nil || e.String() != text {
			t.Fatalf("%v, %s", err, e)
		}
		// The order in which keys are given says nothing.
		k, err := FieldKey(p, []Subject{subjects[2], subjects[0], subjects[1]})
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Open(p, k, len(value))
		if err != nil || string(got) != value {
			t.Errorf("%.40s opens to %.40s, %v", value, got, err)
		}
		if _, err := e.Open(p, k, len(value)-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%.40s, one byte less allowed: %v", value, err)
		}
		if most := len(value) + len(value)/16; len(text) > 10+3*13+(most+tagSize+18)*4/3+4 {
			t.Errorf("%d bytes became %d", len(value), len(text))
		}
	}
	for _, line := range []string{`{}`, `{"timestamp":"2025-10-26T10:53:45.123Z"}`} {
		salt, dek := make([]byte, SaltSize), make([]byte, KeySize)
		rand.Read(salt)
		rand.Read(dek)
		stored, err := SealLine("example.com/log", "dek-00000001", dek, salt, []byte(line))
		if err != nil || !IsLine(stored) || !json.Valid(stored) {
			t.Fatalf("%v: %s", err, stored)
		}
		l, err := ParseLine(stored)
		if err != nil {
			t.Fatal(err)
		}
		k, err := l.Key("example.com/log", dek)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.Open("example.com/log", k, testLimit); err != nil || string(got) != line {
			t.Errorf("%s opens to %s, %v", line, got, err)
		}
	}
}

// Every single bit of an envelope and of its place matters.
func TestSealingNoticesEveryBit(t *testing.T) {
	p, subjects := testPlace(), []Subject{newTestSubject('a')}
	text, err := SealField(p, subjects, []byte(`{"reservation_id":"ZFA04Y"}`))
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseEnvelope(text)
	if err != nil {
		t.Fatal(err)
	}
	k, err := FieldKey(p, subjects)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(e.box) * 8 {
		changed := Envelope{e.handles, bytes.Clone(e.box)}
		changed.box[i/8] ^= 1 << (i % 8)
		if _, err := changed.Open(p, k, testLimit); !errors.Is(err, ErrOpen) {
			t.Errorf("bit %d of the box: %v", i, err)
		}
	}
	for i := range len(k) * 8 {
		other := k
		other[i/8] ^= 1 << (i % 8)
		if _, err := e.Open(p, other, testLimit); !errors.Is(err, ErrOpen) {
			t.Errorf("bit %d of the key: %v", i, err)
		}
	}
}

// An event id that was used twice by mistake does not give two keystreams away:
// ciphertexts of different values have nothing in common.
func TestSealingSurvivesARepeatedEventID(t *testing.T) {
	p, subjects := testPlace(), []Subject{newTestSubject('a')}
	box := func(value string) []byte {
		text, err := SealField(p, subjects, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		e, err := ParseEnvelope(text)
		if err != nil {
			t.Fatal(err)
		}
		return e.box
	}
	one, again, other := box(`"1000 EUR"`), box(`"1000 EUR"`), box(`"9000 EUR"`)
	if !bytes.Equal(one, again) {
		t.Error("the same value in the same place is sealed in two ways")
	}
	same := 0
	for i := range one {
		if one[i] == other[i] {
			same++
		}
	}
	if same > len(one)/4 {
		t.Errorf("%d of %d bytes are equal", same, len(one))
	}
}

func TestSealingRefusesWhatIsNotInOrder(t *testing.T) {
	a, b := newTestSubject('a'), newTestSubject('b')
	short := Subject{a.Handle, a.Key[1:]}
	named := Subject{"a:bcdefghijk", a.Key}
	var many []Subject
	for i := range MaxSubjects + 1 {
		many = append(many, Subject{fmt.Sprintf("handle-%05d", i), a.Key})
	}
	for name, subjects := range map[string][]Subject{"none": nil, "twice": {a, b, a}, "short key": {short}, "handle": {named}, "too many": many} {
		if text, err := SealField(testPlace(), subjects, []byte(`1`)); err == nil {
			t.Errorf("%s: sealed as %s", name, text)
		}
	}
	for _, value := range []string{``, `x`, `{"a":`, "[1,\n2]", `1 2`} {
		if text, err := SealField(testPlace(), []Subject{a}, []byte(value)); err == nil {
			t.Errorf("%q: sealed as %s", value, text)
		}
	}
	for _, line := range []string{``, `1`, "{\n}", `{}{}`} {
		if stored, err := SealLine("o", a.Handle, a.Key, make([]byte, SaltSize), []byte(line)); err == nil {
			t.Errorf("%q: sealed as %s", line, stored)
		}
	}
}

// An error tells where and what kind, never a value.
func TestSealingErrorsHoldNoValue(t *testing.T) {
	const secret = "canary-4711"
	_, err := SealField(testPlace(), []Subject{newTestSubject('a')}, []byte(`{"x":"`+secret+`"`))
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error: %v", err)
	}
	_, err = ParseEnvelope("sealed:v1:" + secret + ":" + secret)
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error: %v", err)
	}
}

// Whatever parses has one spelling, and nothing that was not sealed opens.
func FuzzEnvelope(f *testing.F) {
	v := loadVectors(f)
	for _, s := range v.Fields {
		f.Add(s.Envelope)
	}
	for _, s := range v.Refused {
		f.Add(s.Envelope)
	}
	known := map[string]bool{}
	for _, s := range v.Fields {
		known[s.Envelope] = true
	}
	p := Place{"o", "e", "/inputs"}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEnvelope(s)
		if err != nil {
			return
		}
		if e.String() != s {
			t.Fatalf("%q is also spelled %q", s, e)
		}
		if _, err := e.Open(p, Key{1}, 1<<16); !errors.Is(err, ErrOpen) {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

func FuzzLine(f *testing.F) {
	v := loadVectors(f)
	for _, s := range v.Lines {
		f.Add([]byte(s.Sealed))
	}
	for _, s := range v.RefusedLines {
		f.Add([]byte(s.Sealed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := ParseLine(line)
		if err != nil {
			return
		}
		if got := l.AppendTo(nil); !bytes.Equal(got, line) || !json.Valid(line) {
			t.Fatalf("%q is also spelled %q", line, got)
		}
		k, err := l.Key("o", make([]byte, KeySize))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Open("o", k, 1<<16); !errors.Is(err, ErrOpen) {
			t.Fatalf("%q: %v", line, err)
		}
	})
}

// What stands behind the tag is read by code that a holder of the key can
// reach with any bytes: it never crashes and never gives more than the limit.
func FuzzBody(f *testing.F) {
	for _, s := range loadVectors(f).Fields {
		f.Add([]byte(s.Body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 12
		for _, m := range []method{0, stored, deflated, 3} {
			out, err := m.unpack(data, limit)
			if len(out) > limit || err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("method %d: %d bytes, %v", m, len(out), err)
			}
		}
		packed, m := pack(nil, data)
		if out, err := m.unpack(packed[tagSize:], len(data)); err != nil || !bytes.Equal(out, data) {
			t.Fatalf("method %d gives %q, %v", m, out, err)
		}
		k, in := Key{2}, []byte("place")
		box, err := sealBox(k, in, packed, m)
		if err != nil || !validBox(box) {
			t.Fatal(err)
		}
		if out, err := openBox(k, in, box, len(data)); err != nil || !bytes.Equal(out, data) {
			t.Fatalf("opens to %q, %v", out, err)
		}
	})
}

// Every length of a body has its padding, and room for it.
func TestEveryLengthIsPadded(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(3, 4))
	k, in := Key{3}, []byte("place")
	for n := 0; n < 9000; n += 1 + n/64 {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rng.Uint32()) // does not compress
		}
		packed, m := pack(nil, data)
		box, err := sealBox(k, in, slices.Clip(packed), m)
		if err != nil || len(box) != tagSize+padded(n+1) {
			t.Fatalf("%d bytes: a box of %d, %v", n, len(box), err)
		}
		if out, err := openBox(k, in, box, n); err != nil || !bytes.Equal(out, data) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func BenchmarkSealFields(b *testing.B) {
	subjects := []Subject{newTestSubject('a')}
	values := [][]byte{[]byte(`{"reservation_id":"ZFA04Y"}`), []byte(`{"status":"ok","cabin":"economy","passengers":2}`),
		[]byte(`"mia_li_3668"`), []byte(`"session456"`), []byte(`"192.0.2.1"`)}
	p := testPlace()
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		f, err := NewFields(p.Origin, p.EventID, subjects)
		if err != nil {
			b.Fatal(err)
		}
		for _, v := range values {
			if line, err = f.Append(line[:0], p.Pointer, v); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkSealLine(b *testing.B) {
	line := []byte(loadVectors(b).Entry.Plain)
	key, salt := make([]byte, KeySize), make([]byte, SaltSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := SealLine("o", "dek-00000001", key, salt, line); err != nil {
			b.Fatal(err)
		}
	}
}
