package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

//go:generate sh -c "cd ../.. && go run ./internal/seal/vectors sealing > internal/seal/testdata/vectors/sealing.json"
//go:generate sh -c "cd ../.. && go run ./internal/seal/vectors lifecycle > internal/seal/testdata/vectors/lifecycle.json"

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type vectorPlace struct {
	Origin  string `json:"origin"`
	EventID string `json:"event_id"`
	Pointer string `json:"pointer"`
}

func (p vectorPlace) place() Place { return Place(p) }

type vectorBox struct {
	Info hexBytes `json:"info"`
	Key  hexBytes `json:"box_key"`
	Enc  hexBytes `json:"enc_key"`
	MAC  hexBytes `json:"mac_key"`
	Body hexBytes `json:"body"`
}

// check compares every value between key and box, and gives the box.
func (v vectorBox) check(t *testing.T, k Key, in []byte) []byte {
	t.Helper()
	keys, err := keysOf(k)
	if err != nil {
		t.Fatal(err)
	}
	enc, mac := keys.enc(), keys[KeySize:]
	for _, c := range []struct {
		name      string
		got, want []byte
	}{{"info", in, v.Info}, {"box key", k[:], v.Key}, {"enc key", enc, v.Enc}, {"mac key", mac, v.MAC}} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s is %x, want %x", c.name, c.got, c.want)
		}
	}
	end := bytes.TrimRight(v.Body, "\x00")
	packed := slices.Concat(make([]byte, tagSize), end[:len(end)-1])
	box, err := sealBox(k, in, packed, method(end[len(end)-1]))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

type vectorFile struct {
	Dictionary hexBytes `json:"dictionary_1"`
	Padding    [][2]int `json:"padding"`
	Subjects   []struct {
		Handle string   `json:"handle"`
		Key    hexBytes `json:"key"`
	} `json:"subjects"`
	Fields []struct {
		Name string `json:"name"`
		vectorPlace
		Handles []string `json:"handles"`
		Value   string   `json:"value"`
		vectorBox
		Envelope string `json:"envelope"`
	} `json:"fields"`
	Lines []struct {
		Name   string   `json:"name"`
		Origin string   `json:"origin"`
		KeyID  string   `json:"key_id"`
		DEK    hexBytes `json:"dek"`
		Line   string   `json:"line"`
		vectorBox
		Sealed string `json:"sealed"`
	} `json:"lines"`
	Keys []struct {
		Name    string   `json:"name"`
		Origin  string   `json:"origin"`
		Purpose string   `json:"purpose"`
		ID      string   `json:"id"`
		Under   hexBytes `json:"key"`
		Secret  hexBytes `json:"secret"`
		vectorBox
		Wrapped string `json:"wrapped"`
	} `json:"keys"`
	Refused []struct {
		Name string `json:"name"`
		vectorPlace
		Handles  []string `json:"handles"`
		Key      hexBytes `json:"box_key"`
		Limit    int      `json:"limit"`
		Envelope string   `json:"envelope"`
		Error    string   `json:"error"`
	} `json:"refused_fields"`
	RefusedLines []struct {
		Name   string   `json:"name"`
		Origin string   `json:"origin"`
		DEK    hexBytes `json:"dek"`
		Sealed string   `json:"sealed"`
		Error  string   `json:"error"`
	} `json:"refused_lines"`
	Entry struct {
		Plain        string   `json:"plain"`
		SealedFields string   `json:"sealed_fields"`
		SealedLine   string   `json:"sealed_line"`
		KeyID        string   `json:"key_id"`
		Digest       hexBytes `json:"digest_of_sealed_fields"`
		LineDigest   hexBytes `json:"digest_of_sealed_line"`
	} `json:"entry"`
}

const vectorFileName = "testdata/vectors/sealing.json"

func loadVectors(t testing.TB) (v vectorFile) {
	data, err := os.ReadFile(vectorFileName)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if len(v.Fields) < 10 || len(v.Lines) < 3 || len(v.Keys) < 4 || len(v.Refused) < 40 || len(v.RefusedLines) < 10 || len(v.Padding) < 10 {
		t.Fatalf("the vectors are not whole: %d fields, %d lines, %d keys, %d and %d refused", len(v.Fields), len(v.Lines), len(v.Keys), len(v.Refused), len(v.RefusedLines))
	}
	return v
}

func (v vectorFile) subjects(t *testing.T, handles []string) (out []Subject) {
	for _, h := range handles {
		found := false
		for _, s := range v.Subjects {
			if s.Handle == h {
				out, found = append(out, Subject{s.Handle, s.Key}), true
			}
		}
		if !found {
			t.Fatalf("the vectors have no subject %s", h)
		}
	}
	return out
}

const testLimit = 16 << 20

func TestVectorsOfFieldsOpenAndAreMadeAgain(t *testing.T) {
	v := loadVectors(t)
	for _, f := range v.Fields {
		t.Run(f.Name, func(t *testing.T) {
			p, subjects := f.place(), v.subjects(t, f.Handles)
			k, err := FieldKey(p, subjects)
			if err != nil {
				t.Fatal(err)
			}
			box := f.check(t, k, p.info(strings.Join(f.Handles, ".")))
			e, err := ParseEnvelope(f.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			if e.String() != f.Envelope || strings.Join(e.Handles(), " ") != strings.Join(f.Handles, " ") {
				t.Errorf("parsed as %s", e)
			}
			if !bytes.Equal(box, e.box) {
				t.Errorf("the body seals to %x", box)
			}
			got, err := e.Open(p, k, testLimit)
			if err != nil || string(got) != f.Value {
				t.Errorf("opens to %q, %v", got, err)
			}
		})
	}
}

func TestVectorsOfLinesOpenAndAreMadeAgain(t *testing.T) {
	for _, f := range loadVectors(t).Lines {
		t.Run(f.Name, func(t *testing.T) {
			l, err := ParseLine([]byte(f.Sealed))
			if err != nil {
				t.Fatal(err)
			}
			k, err := l.Key(f.Origin, f.DEK)
			if err != nil {
				t.Fatal(err)
			}
			box := f.check(t, k, info(labelLine, f.Origin, f.KeyID))
			if !bytes.Equal(box, l.data[SaltSize:]) || l.KeyID() != f.KeyID || string(l.AppendTo(nil)) != f.Sealed {
				t.Errorf("the body seals to %x", box)
			}
			got, err := l.Open(f.Origin, k, testLimit)
			if err != nil || string(got) != f.Line {
				t.Errorf("opens to %q, %v", got, err)
			}
		})
	}
}

func TestVectorsOfKeysUnwrapAndAreMadeAgain(t *testing.T) {
	for _, f := range loadVectors(t).Keys {
		t.Run(f.Name, func(t *testing.T) {
			data, ok := decode(f.Wrapped)
			if !ok {
				t.Fatal("not base64url")
			}
			place := info(labelKey, f.Origin, f.Purpose, f.ID)
			k, err := saltedKey(f.Under, data[:SaltSize], place)
			if err != nil {
				t.Fatal(err)
			}
			if box := f.check(t, k, place); !bytes.Equal(box, data[SaltSize:]) {
				t.Errorf("the body seals to %x", box)
			}
			got, err := Unwrap(f.Origin, f.Purpose, f.ID, f.Under, f.Wrapped)
			if err != nil || !bytes.Equal(got, f.Secret) {
				t.Errorf("unwraps to %x, %v", got, err)
			}
			for _, other := range [][3]string{{"x", f.Purpose, f.ID}, {f.Origin, "x", f.ID}, {f.Origin, f.Purpose, "x"}} {
				if _, err := Unwrap(other[0], other[1], other[2], f.Under, f.Wrapped); !errors.Is(err, ErrOpen) {
					t.Errorf("as %v: %v", other, err)
				}
			}
		})
	}
}

var namedErrors = map[string]error{"malformed": ErrMalformed, "version": ErrVersion, "open": ErrOpen, "too_large": ErrTooLarge}

func TestVectorsThatMustBeRefusedAre(t *testing.T) {
	v := loadVectors(t)
	for _, f := range v.Refused {
		t.Run(f.Name, func(t *testing.T) {
			want := namedErrors[f.Error]
			if want == nil {
				t.Fatalf("unknown error %q", f.Error)
			}
			e, err := ParseEnvelope(f.Envelope)
			if err == nil {
				var k Key
				if f.Key == nil {
					if k, err = FieldKey(f.place(), v.subjects(t, f.Handles)); err != nil {
						t.Fatal(err)
					}
				} else {
					copy(k[:], f.Key)
				}
				_, err = e.Open(f.place(), k, f.Limit)
			}
			if !errors.Is(err, want) {
				t.Errorf("error is %v, want %v", err, want)
			}
		})
	}
	for _, f := range v.RefusedLines {
		t.Run("line/"+f.Name, func(t *testing.T) {
			l, err := ParseLine([]byte(f.Sealed))
			if err == nil {
				var k Key
				if k, err = l.Key(f.Origin, f.DEK); err != nil {
					t.Fatal(err)
				}
				_, err = l.Open(f.Origin, k, testLimit)
			}
			if want := namedErrors[f.Error]; want == nil || !errors.Is(err, want) {
				t.Errorf("error is %v, want %v", err, want)
			}
		})
	}
}

// The numbers of docs/format-sealing.md §6.9, and the bound of 110 bytes a
// field that holds from two fields on.
func TestTypicalEntryTakesWhatTheDocumentSays(t *testing.T) {
	v := loadVectors(t)
	e := v.Entry
	var full struct {
		EventID string `json:"event_id"`
		Policy  struct{ Sealed []string }
	}
	if err := json.Unmarshal([]byte(e.SealedFields), &full); err != nil {
		t.Fatal(err)
	}
	subjects := []Subject{{v.Subjects[0].Handle, v.Subjects[0].Key}}
	values := map[string]string{"/inputs": `{"reservation_id":"ZFA04Y"}`, "/outputs": `{"status":"ok","cabin":"economy","passengers":2}`,
		"/metadata/user_id": `"mia_li_3668"`, "/metadata/session_id": `"session456"`, "/metadata/ip_address": `"192.0.2.1"`}
	line := e.Plain
	if len(e.Plain) != 502 {
		t.Errorf("plain: %d bytes", len(e.Plain))
	}
	for i, p := range full.Policy.Sealed {
		text, err := SealField(Place{v.Fields[0].Origin, full.EventID, p}, subjects, []byte(values[p]))
		if err != nil {
			t.Fatal(err)
		}
		name := p[strings.LastIndexByte(p, '/')+1:]
		line = strings.Replace(line, `"`+name+`":`+values[p], `"`+name+`":"`+text+`"`, 1)
		pointers, err := json.Marshal(full.Policy.Sealed[:i+1])
		if err != nil {
			t.Fatal(err)
		}
		sealed := line[:len(line)-1] + `,"policy":{"sealed":` + string(pointers) + `}}`
		n, extra := i+1, len(sealed)-len(e.Plain)
		if want := []int{618, 692, 788, 888, 989}[i]; len(sealed) != want {
			t.Errorf("with %d sealed fields: %d bytes, want %d", n, len(sealed), want)
		}
		if n >= 2 && extra > 110*n {
			t.Errorf("with %d sealed fields: %d bytes more", n, extra)
		}
		// The vector is the standard library's compressor's, and opens as well.
		if n == 5 && (len(sealed) > len(e.SealedFields) || !opensAs(t, e.SealedFields, p, values[p], full.EventID, v.Fields[0].Origin, subjects)) {
			t.Errorf("the vector's entry is %d bytes long, or does not open", len(e.SealedFields))
		}
	}
	for _, c := range []struct {
		line, vector string
		want         int
	}{{e.Plain, v.Lines[0].Sealed, 409}, {line[:len(line)-1] + `,"policy":{"sealed":["/inputs","/outputs","/metadata/user_id","/metadata/session_id","/metadata/ip_address"]}}`, e.SealedLine, 878}} {
		got, err := SealLine(v.Lines[0].Origin, v.Lines[0].KeyID, v.Lines[0].DEK, bytes.Repeat([]byte{1}, SaltSize), []byte(c.line))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != c.want {
			t.Errorf("as a sealed line: %d bytes, want %d (the vector's %d)", len(got), c.want, len(c.vector))
		}
	}
	for text, want := range map[string]hexBytes{e.SealedFields: e.Digest, e.SealedLine: e.LineDigest} {
		if sum := sha256.Sum256([]byte(text)); !bytes.Equal(sum[:], want) {
			t.Errorf("digest %x, want %x", sum, want)
		}
	}
}

// opensAs tells whether the envelope of a field in a line holds a value.
func opensAs(t *testing.T, line, pointer, want, eventID, origin string, subjects []Subject) bool {
	t.Helper()
	name := pointer[strings.LastIndexByte(pointer, '/')+1:]
	_, rest, _ := strings.Cut(line, `"`+name+`":"`)
	text, _, _ := strings.Cut(rest, `"`)
	e, err := ParseEnvelope(text)
	if err != nil {
		t.Fatal(err)
	}
	place := Place{origin, eventID, pointer}
	k, err := FieldKey(place, subjects)
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Open(place, k, 1<<20)
	return err == nil && string(got) == want
}

func TestPaddingIsWhatTheDocumentSays(t *testing.T) {
	for _, p := range loadVectors(t).Padding {
		if got := padded(p[0]); got != p[1] {
			t.Errorf("%d is padded to %d, want %d", p[0], got, p[1])
		}
	}
	before := 0
	for n := 1; n < 1<<17; n++ {
		p := padded(n)
		if p < n || p < before || padded(p) != p || p-n > max(15, n/16) {
			t.Fatalf("%d is padded to %d after %d", n, p, before)
		}
		before = p
	}
}

func TestDictionaryNeverChanges(t *testing.T) {
	if sum := sha256.Sum256(dictionary1); !bytes.Equal(sum[:], loadVectors(t).Dictionary) {
		t.Errorf("dictionary 1 is %x: lines sealed with another one do not open", sum)
	}
	if bytes.IndexByte(dictionary1, '\r') >= 0 {
		t.Error("dictionary 1 has a carriage return: a checkout changed it")
	}
}

// The whole of the tests again with Go's FIPS 140-3 module in only mode, in
// which whatever is not approved fails.
func TestEverythingRunsInFIPSOnlyMode(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^(TestVectors|TestSealing)", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("--- PASS: TestVectors")); n < 4 {
		t.Errorf("%d tests ran\n%s", n, out)
	}
}

// Another language, which shares no line of code with us, comes to the same.
func TestPythonAgrees(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("skipped: no python3 on this machine; testdata/check_vectors.py was not run")
	}
	out, err := exec.Command(python, "testdata/check_vectors.py", vectorFileName).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("all as they must be")) {
		t.Errorf("unexpected output:\n%s", out)
	}
	// A checker that finds nothing wrong in wrong vectors shows nothing.
	data, err := os.ReadFile(vectorFileName)
	if err != nil {
		t.Fatal(err)
	}
	wrong := t.TempDir() + "/wrong.json"
	for _, change := range [][2]string{{`"pointer": "/inputs"`, `"pointer": "/input"`}, {`"error": "open"`, `"error": "malformed"`}, {`"a":1`, `"a":2`}} {
		changed := strings.Replace(string(data), change[0], change[1], 1)
		if changed == string(data) {
			changed = strings.Replace(string(data), strings.ReplaceAll(change[0], `"`, `\"`), strings.ReplaceAll(change[1], `"`, `\"`), 1)
		}
		if changed == string(data) {
			t.Fatalf("nothing to change for %v", change)
		}
		if err := os.WriteFile(wrong, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(python, "testdata/check_vectors.py", wrong).CombinedOutput(); err == nil {
			t.Errorf("with %v the checker says:\n%s", change, out)
		}
	}
}
