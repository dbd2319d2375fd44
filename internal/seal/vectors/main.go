// Command vectors makes the test vectors of docs/format-sealing.md and
// docs/format-lifecycle.md from fixed inputs. It uses the package for what it is to make, and the standard library
// alone for every value in between and for boxes that the package refuses to
// make: the two have to agree.
//
//	go run ./internal/seal/vectors sealing > internal/seal/testdata/vectors/sealing.json
//	go run ./internal/seal/vectors lifecycle > internal/seal/testdata/vectors/lifecycle.json
//
// It is run at the root of the module. Another version of compress/flate may
// compress differently: the boxes with method 2 are then others, and as good.
package main

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

type subject struct {
	Handle string `json:"handle"`
	Key    string `json:"key"`
}

type place struct {
	Origin  string `json:"origin"`
	EventID string `json:"event_id"`
	Pointer string `json:"pointer"`
}

type box struct {
	Info string `json:"info"`
	Key  string `json:"box_key"`
	Enc  string `json:"enc_key"`
	MAC  string `json:"mac_key"`
	Body string `json:"body"`
}

type field struct {
	Name string `json:"name"`
	place
	Handles []string `json:"handles"`
	Value   string   `json:"value"`
	box
	Envelope string `json:"envelope"`
}

type line struct {
	Name   string `json:"name"`
	Origin string `json:"origin"`
	KeyID  string `json:"key_id"`
	DEK    string `json:"dek"`
	Line   string `json:"line"`
	box
	Sealed string `json:"sealed"`
}

type wrapped struct {
	Name    string `json:"name"`
	Origin  string `json:"origin"`
	Purpose string `json:"purpose"`
	ID      string `json:"id"`
	Under   string `json:"key"`
	Secret  string `json:"secret"`
	box
	Wrapped string `json:"wrapped"`
}

// refused is opened with the keys of Handles, or with Key where it is given.
type refused struct {
	Name string `json:"name"`
	place
	Handles  []string `json:"handles,omitempty"`
	Key      string   `json:"box_key,omitempty"`
	Limit    int      `json:"limit"`
	Envelope string   `json:"envelope"`
	Error    string   `json:"error"`
}

type refusedLine struct {
	Name   string `json:"name"`
	Origin string `json:"origin"`
	DEK    string `json:"dek"`
	Sealed string `json:"sealed"`
	Error  string `json:"error"`
}

type entry struct {
	Plain        string `json:"plain"`
	SealedFields string `json:"sealed_fields"`
	SealedLine   string `json:"sealed_line"`
	KeyID        string `json:"key_id"`
	Digest       string `json:"digest_of_sealed_fields"`
	LineDigest   string `json:"digest_of_sealed_line"`
}

type vectors struct {
	About        string        `json:"about"`
	Dictionary   string        `json:"dictionary_1"`
	Padding      [][2]int      `json:"padding"`
	Subjects     []subject     `json:"subjects"`
	Fields       []field       `json:"fields"`
	Lines        []line        `json:"lines"`
	Keys         []wrapped     `json:"keys"`
	Refused      []refused     `json:"refused_fields"`
	RefusedLines []refusedLine `json:"refused_lines"`
	Entry        entry         `json:"entry"`
}

const (
	origin  = "kaizen-audit.invalid/0011223344556677"
	origin2 = "log.example.com/agents"
	eventID = "019a2010-b3c3-7abc-8def-0123456789ab"
	limit   = 16 << 20
)

var b64 = base64.RawURLEncoding

// fixed gives n bytes that look random and are the same each time.
func fixed(n int, name string) []byte {
	sum := sha256.Sum256([]byte("kaizen-audit test vector: " + name))
	return sum[:n]
}

func newSubject(name string) seal.Subject {
	return seal.Subject{Handle: b64.EncodeToString(fixed(9, "handle of "+name)), Key: fixed(seal.KeySize, "key of "+name)}
}

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vectors:", err)
		os.Exit(1)
	}
	return v
}

// info, keysOf, rawBox and bodyOf are docs/format-sealing.md §6.2 once more.
func info(parts ...string) []byte {
	var out []byte
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

func keysOf(k []byte) (enc, mac []byte) {
	b := must(hkdf.Expand(sha256.New, k, "kaizen-audit/box/v1", 64))
	return b[:32], b[32:]
}

func ctr(enc, tag, text []byte) []byte {
	out := make([]byte, len(text))
	cipher.NewCTR(must(aes.NewCipher(enc)), tag[:16]).XORKeyStream(out, text)
	return out
}

func rawBox(k, in, body []byte) []byte {
	enc, mac := keysOf(k)
	h := hmac.New(sha256.New, mac)
	h.Write(info(string(in)))
	h.Write(body)
	tag := h.Sum(nil)
	return append(tag, ctr(enc, tag, body)...)
}

func describe(k, in, b []byte) box {
	enc, mac := keysOf(k)
	body := ctr(enc, b[:32], b[32:])
	if !bytes.Equal(rawBox(k, in, body), b) {
		must(0, fmt.Errorf("the package and the document disagree"))
	}
	return box{hex.EncodeToString(in), hex.EncodeToString(k), hex.EncodeToString(enc), hex.EncodeToString(mac), hex.EncodeToString(body)}
}

func (p place) seal() seal.Place {
	return seal.Place{Origin: p.Origin, EventID: p.EventID, Pointer: p.Pointer}
}

func handlesOf(subjects []seal.Subject) []string {
	var out []string
	for _, s := range subjects {
		out = append(out, s.Handle)
	}
	slices.Sort(out)
	return out
}

func newField(name string, p place, value string, subjects ...seal.Subject) field {
	env := must(seal.SealField(p.seal(), subjects, []byte(value)))
	handles := handlesOf(subjects)
	ordered := slices.Clone(subjects)
	slices.SortFunc(ordered, func(a, b seal.Subject) int { return strings.Compare(a.Handle, b.Handle) })
	var secret []byte
	for _, s := range ordered {
		secret = append(secret, s.Key...)
	}
	in := info("kaizen-audit/field/v1", p.Origin, p.EventID, p.Pointer, strings.Join(handles, "."))
	k := must(hkdf.Key(sha256.New, secret, []byte(p.EventID), string(in), 32))
	return field{name, p, handles, value, describe(k, in, boxOf(env)), env}
}

func boxOf(env string) []byte { return must(b64.DecodeString(env[strings.LastIndexByte(env, ':')+1:])) }

// withBox is an envelope that has another box.
func withBox(env string, b []byte) string {
	return env[:strings.LastIndexByte(env, ':')+1] + b64.EncodeToString(b)
}

func newLine(name, origin, id string, text string) line {
	dek, salt := fixed(32, "DEK "+id), fixed(16, "salt of line "+name)
	stored := string(must(seal.SealLine(origin, id, dek, salt, []byte(text))))
	data := dataOf(stored)
	in := info("kaizen-audit/line/v1", origin, id)
	k := must(hkdf.Key(sha256.New, dek, data[:16], string(in), 32))
	return line{name, origin, id, hex.EncodeToString(dek), text, describe(k, in, data[16:]), stored}
}

func dataOf(stored string) []byte {
	var l struct{ Data string }
	must(0, json.Unmarshal([]byte(stored), &l))
	return must(b64.DecodeString(l.Data))
}

func newWrapped(name, purpose, id string, secret []byte) wrapped {
	key, salt := fixed(32, "wrapping key of "+name), fixed(16, "salt of "+name)
	text := must(seal.Wrap(origin, purpose, id, key, salt, secret))
	data := must(b64.DecodeString(text))
	in := info("kaizen-audit/key/v1", origin, purpose, id)
	k := must(hkdf.Key(sha256.New, key, data[:16], string(in), 32))
	return wrapped{name, origin, purpose, id, hex.EncodeToString(key), hex.EncodeToString(secret), describe(k, in, data[16:]), text}
}

func deflate(text []byte) []byte {
	var out bytes.Buffer
	w := must(flate.NewWriterDict(&out, flate.BestCompression, dictionary()))
	must(w.Write(text))
	must(0, w.Close())
	return out.Bytes()
}

func dictionary() []byte { return must(os.ReadFile("internal/seal/dictionary-1.txt")) }

func flip(b []byte, at int) []byte {
	out := bytes.Clone(b)
	out[(at+len(out))%len(out)] ^= 1
	return out
}

func main() {
	var v any
	switch {
	case len(os.Args) == 2 && os.Args[1] == "sealing":
		v = sealingVectors()
	case len(os.Args) == 2 && os.Args[1] == "lifecycle":
		v = lifecycleVectors()
	default:
		fmt.Fprintln(os.Stderr, "usage: vectors sealing|lifecycle")
		os.Exit(2)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	must(0, e.Encode(v))
}

func sealingVectors() vectors {
	a, b, c := newSubject("person A"), newSubject("person B"), newSubject("trace C")
	at := func(pointer string) place {
		return place{origin, eventID, pointer}
	}
	v := vectors{
		About: "kaizen-audit format 1, sealed fields, lines and keys; docs/format-sealing.md says what everything is. " +
			"Keys, info and body are hex; box and data are base64url.",
	}
	sum := sha256.Sum256(dictionary())
	v.Dictionary = hex.EncodeToString(sum[:])
	v.Padding = [][2]int{{1, 16}, {15, 16}, {16, 16}, {17, 32}, {255, 256}, {257, 272}, {511, 512}, {512, 512}, {513, 544},
		{1023, 1024}, {1025, 1088}, {4097, 4352}, {65537, 69632}, {1000000, 1015808}}
	for _, s := range []seal.Subject{a, b, c} {
		v.Subjects = append(v.Subjects, subject{s.Handle, hex.EncodeToString(s.Key)})
	}

	long := `{"messages":[{"role":"user","content":"` + strings.Repeat("The reservation is ZFA04Y, two passengers, economy. ", 12) + `"}]}`
	v.Fields = []field{
		newField("an object, one subject", at("/inputs"), `{"reservation_id":"ZFA04Y"}`, a),
		newField("an object, deflated", at("/outputs"), `{"status":"ok","result":{"cabin":"economy","passengers":2,"first_name":"Mia","last_name":"Li"}}`, a),
		newField("a string", at("/metadata/user_id"), `"mia_li_3668"`, a),
		newField("two subjects", at("/error"), `"transfer between two customers was refused"`, b, a),
		newField("a trace as subject", at("/inputs"), `{"value":"personal text with no declared subject"}`, c),
		newField("three subjects", at("/outputs"), `{"value":[1,2,3]}`, c, b, a),
		newField("a number keeps its digits", at("/metadata/weight"), `70.50`, a),
		newField("a boolean", at("/metadata/smoker"), `false`, a),
		newField("a pointer with ~ and /", at("/metadata/a~1b~0c"), `"x"`, a),
		newField("text beyond ASCII", at("/metadata/имя"), `"Ключ 鍵 🔑"`, a),
		newField("escapes inside the value stay", at("/resource/id"), `"P\u00e9rez \"12345\""`, b),
		newField("a body of 511 and more", at("/inputs"), long, a),
		newField("another trail", place{origin2, "019a2010-b3c4-7000-8000-000000000001", "/inputs"}, `{"reservation_id":"ZFA04Y"}`, a),
	}

	plain := `{"timestamp":"2025-10-26T10:53:45.123Z","event_type":"TOOL_USE","agent_id":"qa-agent-001","trace_id":"0af7651916cd43dd8448eb211c80319c",` +
		`"action":"tool_use:get_reservation_details","inputs":{"reservation_id":"ZFA04Y"},"outputs":{"status":"ok","cabin":"economy","passengers":2},` +
		`"duration_ms":45.2,"success":true,"error":null,"metadata":{"user_id":"mia_li_3668","session_id":"session456","ip_address":"192.0.2.1"},` +
		`"event_id":"` + eventID + `","recorded_at":"2025-10-26T10:53:45.125Z"}`
	sealed := plain
	pointers := []struct{ pointer, name, value string }{
		{"/inputs", "inputs", `{"reservation_id":"ZFA04Y"}`},
		{"/outputs", "outputs", `{"status":"ok","cabin":"economy","passengers":2}`},
		{"/metadata/user_id", "user_id", `"mia_li_3668"`},
		{"/metadata/session_id", "session_id", `"session456"`},
		{"/metadata/ip_address", "ip_address", `"192.0.2.1"`},
	}
	var list []string
	for _, p := range pointers {
		env := must(seal.SealField(at(p.pointer).seal(), []seal.Subject{a}, []byte(p.value)))
		sealed = strings.Replace(sealed, `"`+p.name+`":`+p.value, `"`+p.name+`":"`+env+`"`, 1)
		list = append(list, `"`+p.pointer+`"`)
	}
	sealed = sealed[:len(sealed)-1] + `,"policy":{"sealed":[` + strings.Join(list, ",") + `]}}`
	dekID := b64.EncodeToString(fixed(9, "id of the DEK"))
	v.Lines = []line{
		newLine("a plain line", origin, dekID, plain),
		newLine("a line with sealed fields", origin, dekID, sealed),
		newLine("a short line, stored", origin2, dekID, `{"a":1}`),
	}
	v.Entry = entry{plain, sealed, v.Lines[1].Sealed, dekID, digest(sealed), digest(v.Lines[1].Sealed)}

	v.Keys = []wrapped{
		newWrapped("an epoch key under the KEK", "epoch", "3", fixed(32, "epoch key 3")),
		newWrapped("a page key under an epoch key", "page", "0-3", fixed(32, "page key 0-3")),
		newWrapped("a subject under a page key", "subject", a.Handle, []byte(`{"kind":"person","id":"mia_li_3668","key":"`+b64.EncodeToString(a.Key)+`"}`)),
		newWrapped("a DEK under the KEK", "dek", dekID, fixed(32, "DEK "+dekID)),
	}

	v.Refused = refusals(v.Fields, at, a, b, c)
	l := v.Lines[0]
	text := l.Sealed
	data := dataOf(text)
	again := func(d []byte) string {
		return `{"sealed":"v1","key":"` + dekID + `","data":"` + b64.EncodeToString(d) + `"}`
	}
	bad := func(name, origin, dek, sealed, err string) {
		v.RefusedLines = append(v.RefusedLines, refusedLine{name, origin, dek, sealed, err})
	}
	bad("flipped bit of the salt", origin, l.DEK, again(flip(data, 0)), "open")
	bad("flipped bit of the tag", origin, l.DEK, again(flip(data, 16)), "open")
	bad("flipped bit of the ciphertext", origin, l.DEK, again(flip(data, -1)), "open")
	bad("another trail's origin", origin2, l.DEK, text, "open")
	bad("another DEK", origin, hex.EncodeToString(fixed(32, "another DEK")), text, "open")
	bad("another key id", origin, l.DEK, strings.Replace(text, dekID, "AAAAAAAAAAAA", 1), "open")
	bad("truncated by a block", origin, l.DEK, again(data[:len(data)-16]), "open")
	bad("truncated inside a block", origin, l.DEK, again(data[:len(data)-1]), "malformed")
	bad("salt and tag alone", origin, l.DEK, again(data[:48]), "malformed")
	bad("version before", origin, l.DEK, strings.Replace(text, `"v1"`, `"v0"`, 1), "version")
	bad("version after", origin, l.DEK, strings.Replace(text, `"v1"`, `"v2"`, 1), "version")
	bad("white space", origin, l.DEK, strings.Replace(text, `,"key"`, `, "key"`, 1), "malformed")
	bad("another member", origin, l.DEK, text[:len(text)-1]+`,"x":1}`, "malformed")
	bad("an envelope's box as a line", origin, l.DEK, again(append(fixed(16, "x"), boxOf(v.Fields[0].Envelope)...)), "open")
	return v
}

func digest(line string) string {
	sum := sha256.Sum256([]byte(line))
	return hex.EncodeToString(sum[:])
}

func refusals(fields []field, at func(string) place, a, b, c seal.Subject) (out []refused) {
	one, two := fields[0], fields[3]
	env := one.Envelope
	raw := boxOf(env)
	bad := func(name string, p place, subjects []seal.Subject, envelope, err string) {
		out = append(out, refused{name, p, handlesOf(subjects), "", limit, envelope, err})
	}
	A, AB := []seal.Subject{a}, []seal.Subject{a, b}
	bad("flipped bit, first of the tag", one.place, A, withBox(env, flip(raw, 0)), "open")
	bad("flipped bit, last of the tag", one.place, A, withBox(env, flip(raw, 31)), "open")
	bad("flipped bit of the ciphertext", one.place, A, withBox(env, flip(raw, 32)), "open")
	bad("flipped bit of the padding", one.place, A, withBox(env, flip(raw, -1)), "open")
	bad("moved to another pointer", at("/outputs"), A, env, "open")
	p := one.place
	p.EventID = "019a2010-b3c3-7abc-8def-0123456789ac"
	bad("moved to another entry", p, A, env, "open")
	p = one.place
	p.Origin = origin2
	bad("moved to another trail", p, A, env, "open")
	bad("a member's name in place of its pointer", at("inputs"), A, env, "open")
	bad("pointer without its escapes", at("/metadata/a/b~c"), A, fields[8].Envelope, "open")

	named := func(handles string) string {
		return "sealed:v1:" + handles + two.Envelope[strings.LastIndexByte(two.Envelope, ':'):]
	}
	h := two.Handles
	bad("handles swapped", two.place, AB, named(h[1]+"."+h[0]), "malformed")
	bad("a handle twice", two.place, AB, named(h[0]+"."+h[0]), "malformed")
	bad("one of two handles left out", two.place, A, named(a.Handle), "open")
	bad("a handle changed to another subject's", two.place, []seal.Subject{a, c}, named(strings.Join(handlesOf([]seal.Subject{a, c}), ".")), "open")
	bad("another subject's handle, this subject's envelope", one.place, []seal.Subject{b}, strings.Replace(env, a.Handle, b.Handle, 1), "open")
	bad("no handle", two.place, AB, named(""), "malformed")
	bad("a handle too short", one.place, A, strings.Replace(env, a.Handle, a.Handle[1:], 1), "malformed")
	bad("a handle with another alphabet", one.place, A, strings.Replace(env, a.Handle, "+"+a.Handle[1:], 1), "malformed")
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprintf("handle-%05d", i))
	}
	bad("65 handles", one.place, A, strings.Replace(env, a.Handle, strings.Join(many, "."), 1), "malformed")

	key := func(name string, f field, k []byte, envelope, err string) {
		out = append(out, refused{name, f.place, nil, hex.EncodeToString(k), limit, envelope, err})
	}
	key("a second key for the same ciphertext", one, fixed(32, "a forged field key"), env, "open")
	key("the key of another field of the entry", one, must(hex.DecodeString(fields[1].Key)), env, "open")
	key("the subject key in place of the field's", one, a.Key, env, "open")

	bad("truncated by a block", one.place, A, withBox(env, raw[:len(raw)-16]), "open")
	bad("truncated inside a block", one.place, A, withBox(env, raw[:len(raw)-1]), "malformed")
	bad("truncated to its tag", one.place, A, withBox(env, raw[:32]), "malformed")
	bad("longer by a block", one.place, A, withBox(env, append(bytes.Clone(raw), make([]byte, 16)...)), "open")
	bad("empty box", one.place, A, withBox(env, nil), "malformed")
	bad("version before", one.place, A, strings.Replace(env, ":v1:", ":v0:", 1), "version")
	bad("version after", one.place, A, strings.Replace(env, ":v1:", ":v2:", 1), "version")
	bad("version in capitals", one.place, A, strings.Replace(env, ":v1:", ":V1:", 1), "version")
	bad("no version", one.place, A, strings.Replace(env, ":v1:", ":", 1), "version")
	bad("no prefix", one.place, A, strings.TrimPrefix(env, "sealed:"), "malformed")
	bad("base64 with padding", one.place, A, env+"=", "malformed")
	bad("base64 of the other alphabet", one.place, A, env[:len(env)-1]+"+", "malformed")
	bad("a line end inside the base64", one.place, A, env[:len(env)-4]+"\n"+env[len(env)-4:], "malformed")
	bad("base64 with bits to spare", one.place, A, spare(env), "malformed")
	bad("text behind it", one.place, A, env+":x", "malformed")
	bad("text that only looks like it", one.place, A, "sealed:v1:this is a caller's own text", "malformed")

	// Boxes whose tag is right: what the key's holder could have made.
	made := func(name string, body []byte, limit int, err string) {
		k, in := must(hex.DecodeString(one.Key)), must(hex.DecodeString(one.Info))
		out = append(out, refused{name, one.place, one.Handles, "", limit, withBox(env, rawBox(k, in, body)), err})
	}
	pad := func(n int, parts ...[]byte) []byte {
		b := bytes.Join(parts, nil)
		return append(b, make([]byte, n-len(b))...)
	}
	value := []byte(one.Value)
	made("padded to more than it needs", pad(48, value, []byte{1}), limit, "malformed")
	made("all padding", make([]byte, 16), limit, "malformed")
	made("unknown method", pad(32, value, []byte{3}), limit, "malformed")
	made("padding that is not zero", bytes.Join([][]byte{value, {1, 0, 0, 0, 7}}, nil), limit, "malformed")
	made("not JSON", pad(16, []byte("hello"), []byte{1}), limit, "malformed")
	made("two JSON texts", pad(16, []byte("1 2"), []byte{1}), limit, "malformed")
	made("a line end in the value", pad(16, []byte("[1,\n2]"), []byte{1}), limit, "malformed")
	made("larger than allowed, stored", pad(32, value, []byte{1}), len(value)-1, "too_large")
	bomb := deflate([]byte(`"` + strings.Repeat("0", 100_000) + `"`))
	made("larger than allowed, deflated", pad(padTo(len(bomb)+1), bomb, []byte{2}), 50_000, "too_large")
	cut := deflate([]byte(long()))
	cut = cut[:len(cut)-3]
	made("deflate stream cut short", pad(padTo(len(cut)+1), cut, []byte{2}), limit, "malformed")
	behind := append(deflate(value), 'x')
	made("bytes behind the deflate stream", pad(padTo(len(behind)+1), behind, []byte{2}), limit, "malformed")
	return out
}

func long() string { return `{"query":"` + strings.Repeat("hotel in Lisbon, ", 20) + `"}` }

// padTo is the padding of §6.2.
func padTo(n int) int {
	unit := 16
	for unit*32 <= n {
		unit *= 2
	}
	return (n + unit - 1) / unit * unit
}

// spare sets an unused bit of the last character: other text, same bytes.
func spare(env string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, env[len(env)-1])
	return env[:len(env)-1] + alphabet[i|1:][:1]
}
