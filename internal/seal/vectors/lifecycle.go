package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// lifecycle is testdata/vectors/lifecycle.json: one line of each type as
// docs/format-lifecycle.md shows it, and lines that are not valid.
type lifecycle struct {
	About     string       `json:"about"`
	Origin    string       `json:"origin"`
	Writer    key          `json:"writer"`
	Lifecycle key          `json:"lifecycle"`
	Lines     []signedLine `json:"lines"`
	Refused   []signedLine `json:"refused"`
}

type key struct {
	VKey   string `json:"vkey"`
	Seed   string `json:"seed"`
	Public string `json:"public"`
}

type signedLine struct {
	Name   string `json:"name"`
	Signer string `json:"signer"` // "writer" or "lifecycle"
	Line   string `json:"line"`
}

func newKey(name string) (key, ed25519.PrivateKey) {
	seed := fixed(32, "seed of the "+name+" key")
	k := ed25519.NewKeyFromSeed(seed)
	public := k.Public().(ed25519.PublicKey)
	// c2sp.org/signed-note: the key hash is of name, newline, type, key.
	hash := sha256.Sum256(append([]byte(origin+"\n\x01"), public...))
	vkey := origin + "+" + hex.EncodeToString(hash[:4]) + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, public...))
	return key{vkey, hex.EncodeToString(seed), hex.EncodeToString(public)}, k
}

// idAt is the UUIDv7 of a time, n in place of what is random.
func idAt(at string, n int) string {
	ms := must(time.Parse("2006-01-02T15:04:05.000Z", at)).UnixMilli()
	return fmt.Sprintf("%08x-%04x-7001-8001-%012x", ms>>16, ms&0xffff, n)
}

// own is a lifecycle line. rest is what stands behind event_id; {at} in it is
// the time.
func own(k ed25519.PrivateKey, at, eventType, action, id, outputs string, rest ...string) string {
	tail := `,"recorded_at":"` + at + `"`
	if len(rest) > 0 {
		tail = strings.ReplaceAll(rest[0], "{at}", tail)
	}
	line := `{"timestamp":"` + at + `","event_type":"` + eventType + `","agent_id":"kaizen-audit","trace_id":"` + origin +
		`","action":"` + action + `","inputs":{},"outputs":` + outputs +
		`,"duration_ms":0,"success":true,"error":null,"metadata":{"principal":"uid:1000","signature":""},"event_id":"` + id + `"` + tail + `}`
	return signed(k, line)
}

func signed(k ed25519.PrivateKey, line string) string {
	const empty = `"signature":""`
	i := strings.LastIndex(line, empty) + len(empty) - 1
	return line[:i] + base64.StdEncoding.EncodeToString(ed25519.Sign(k, []byte(line))) + line[i:]
}

func lifecycleVectors() lifecycle {
	writer, w := newKey("writer's")
	permit, p := newKey("lifecycle")
	v := lifecycle{
		About:  "kaizen-audit format 1, lifecycle entries; docs/format-lifecycle.md says what everything is. seed and public are hex.",
		Origin: origin, Writer: writer, Lifecycle: permit,
	}
	add := func(name, signer, line string) { v.Lines = append(v.Lines, signedLine{name, signer, line}) }
	root := func(n string) string { return hex.EncodeToString(fixed(32, "root at "+n)) }
	both := `"lifecycle_vkey":"` + permit.VKey + `"`
	process := `"writer":{"host":"db-1","pid":4711,"boot_id":"5f2b0c1e-6f0a-4d2e-9a53-0c8b4d1f7a10","started":"2026-01-02T03:04:05.678Z","command":"app"}`
	keys := `"keys":[{"vkey":"` + writer.VKey + `","from":0}]`
	at := "2026-01-02T03:04:05.678Z"

	created := own(w, at, "AUDIT_CREATED", "trail_created", idAt(at, 1),
		`{"format":1,`+both+`,"origin":"`+origin+`","profile":"plain","vkey":"`+writer.VKey+`",`+process+`}`)
	add("created", "writer", created)
	add("successor", "writer", own(w, at, "AUDIT_CREATED", "trail_created", idAt(at, 2),
		`{"format":1,`+both+`,"origin":"`+origin+`","policy":{"encrypt":true,"locked":true,"profile":"gdpr","retention_days":2555,"version":0},"profile":"gdpr",`+
			`"successor_of":{"origin":"log.example.com/agents","size":1234,"root":"`+root("1234")+`","vkey":"log.example.com/agents+0a1b2c3d+AQIDBA==","log":"audit.1234.jsonl"},"vkey":"`+writer.VKey+`",`+process+`}`))
	add("recovery", "writer", own(w, "2026-01-03T00:00:00.000Z", "AUDIT_RECOVERY", "trail_recovered", idAt("2026-01-03T00:00:00.000Z", 3),
		`{"checkpoint":1000,"adopted":[{"first":1000,"count":12,"signed":false}],"set_aside":[{"file":"aside/00000000000000001012-20260103T000000Z.jsonl","first":1012,"bytes":173,"reason":"torn"}]}`))
	sealLine := own(w, "2026-01-04T00:00:00.000Z", "AUDIT_SEAL", "segment_sealed", idAt("2026-01-04T00:00:00.000Z", 4),
		`{"gaps":[],`+keys+`,"policy":{"profile":"plain","retention_days":null},"segment":{"bytes":456789,"count":1013,"first":0,"max_recorded_at":"2026-01-03T23:59:59.120Z","root":"`+root("1013")+`"}}`)
	add("seal", "writer", sealLine)
	hold := idAt("2026-01-04T00:20:00.000Z", 5)
	state := `"erased":[],"gaps":[],"holds":[{"hold":"` + hold + `","index":1019,"open":true,"ranges":[{"first":1013,"count":900}]}],` + keys + `,` + both +
		`,"policy":{"encrypt":false,"locked":true,"profile":"plain","retention_days":2555,"version":1}`
	sealLater := own(w, "2026-02-01T00:00:00.000Z", "AUDIT_SEAL", "segment_sealed", idAt("2026-02-01T00:00:00.000Z", 5),
		`{`+state+`,"segment":{"bytes":1223344,"count":2500,"first":1013,"max_recorded_at":"2026-01-31T23:59:58.001Z","max_timestamp":"2026-01-31T23:59:57.900Z",`+
			`"min_recorded_at":"2026-01-04T00:00:00.000Z","min_timestamp":"2026-01-03T22:10:00.000Z","retention_days":2555,"root":"`+root("3513")+`"}}`)
	add("seal with everything restated", "writer", sealLater)
	add("clock", "writer", own(w, "2099-01-01T00:00:00.000Z", "AUDIT_CLOCK", "clock_stepped", idAt("2099-01-01T00:00:00.000Z", 6),
		`{"direction":"forward","from":"2026-01-05T10:00:00.000Z","to":"2099-01-01T00:00:00.000Z"}`))
	policy := own(p, "2026-01-04T00:10:00.000Z", "AUDIT_POLICY", "policy_set", idAt("2026-01-04T00:10:00.000Z", 7),
		`{"policy":{"encrypt":false,"locked":true,"profile":"plain","retention_days":2555,"version":1},"was":{"encrypt":false,"locked":false,"profile":"plain","retention_days":null,"version":0}}`)
	add("policy", "lifecycle", policy)
	add("hold added", "lifecycle", own(p, "2026-01-04T00:20:00.000Z", "AUDIT_HOLD", "hold_added", hold,
		`{"filter":{"agent_id":"qa-agent-001"},"handles":[],"open":true,"ranges":[{"first":1013,"count":900}],"reason":"case 2026-17","since":null,"until":null}`))
	add("hold lifted", "lifecycle", own(p, "2026-06-01T00:00:00.000Z", "AUDIT_HOLD", "hold_lifted", idAt("2026-06-01T00:00:00.000Z", 8),
		`{"hold":"`+hold+`","reason":"case closed"}`))

	// An erasure in a profile that seals: its free text is a sealed field.
	subject, own1 := newSubject("person A"), newSubject("the trail itself")
	id := idAt("2026-06-01T00:00:00.000Z", 6)
	reason := must(seal.SealField(seal.Place{Origin: origin, EventID: id, Pointer: "/outputs/reason"}, []seal.Subject{own1}, []byte(`"request of 30 May 2026"`)))
	salt, finger := fixed(32, "salt of the certificate"), sha256.Sum256(info("kaizen-audit/fingerprint/v1", string(subject.Key)))
	commitment := sha256.Sum256(info("kaizen-audit/subject/v1", string(salt), "mia_li_3668"))
	add("erasure", "lifecycle", own(p, "2026-06-01T00:00:00.000Z", "AUDIT_ERASURE", "subject_erased", id,
		`{"commitment":"`+hex.EncodeToString(commitment[:])+`","complete_after":"2026-07-01T00:00:00.000Z","entries":17,"epoch":{"from":2,"to":3},"fields":61,`+
			`"handles":["`+subject.Handle+`"],"keys":["`+hex.EncodeToString(finger[:16])+`"],"ranges":[{"first":120,"count":9},{"first":2011,"count":8}],"reason":"`+reason+`","root":"`+root("5000")+`","size":5000}`,
		`{at},"policy":{"sealed":["/outputs/reason"]}`))

	next, _ := newKey("next writer's")
	add("signing key rotated", "lifecycle", own(p, "2027-01-01T00:00:00.000Z", "AUDIT_KEY", "key_rotated", idAt("2027-01-01T00:00:00.000Z", 9),
		`{"from":9001,"id":"`+next.VKey+`","kind":"signing","reason":"scheduled","was":"`+writer.VKey+`"}`))
	add("DEK added", "writer", own(w, "2026-06-02T00:00:00.000Z", "AUDIT_KEY", "key_added", idAt("2026-06-02T00:00:00.000Z", 10),
		`{"id":"`+b64.EncodeToString(fixed(9, "id of the DEK"))+`","kind":"dek","reason":"scheduled","was":null}`))
	quoted := string(must(json.Marshal(sealLine)))
	add("prune", "lifecycle", own(p, "2033-02-05T00:00:00.000Z", "AUDIT_PRUNE", "segments_pruned", idAt("2033-02-05T00:00:00.000Z", 11),
		`{"erased":[],"gaps":[{"first":0,"count":3513}],"holds":[],`+keys+`,`+both+`,"policy":{"encrypt":false,"locked":true,"profile":"plain","retention_days":2555,"version":1},`+
			`"range":{"first":0,"count":3513},"rule":"retention","seals":[{"index":1013,"line":`+quoted+`}]}`))

	bad := func(name, signer, line string) { v.Refused = append(v.Refused, signedLine{name, signer, line}) }
	bad("one digit of a fact changed", "writer", strings.Replace(sealLine, `"count":1013`, `"count":1014`, 1))
	bad("signed by the writer where the lifecycle key is asked for", "lifecycle", own(w, "2026-01-04T00:10:00.000Z", "AUDIT_POLICY", "policy_set",
		idAt("2026-01-04T00:10:00.000Z", 12), `{"policy":{"profile":"plain","retention_days":1,"version":1},"was":{"profile":"plain","retention_days":null}}`))
	bad("signature left out", "writer", replaceSignature(created, ""))
	bad("signature of another line", "writer", replaceSignature(created, signatureOf(sealLine)))
	bad("signature in base64url", "lifecycle", replaceSignature(policy, strings.NewReplacer("+", "-", "/", "_").Replace(signatureOf(policy))))
	bad("signature without its padding", "writer", replaceSignature(created, strings.TrimRight(signatureOf(created), "=")))
	bad("another trail's entry, same key", "writer", signed(w, replaceSignature(strings.Replace(created, `"trace_id":"`+origin, `"trace_id":"`+origin2, 1), "")))
	bad("a caller's agent", "writer", signed(w, replaceSignature(strings.Replace(created, `"agent_id":"kaizen-audit"`, `"agent_id":"kaizen"`, 1), "")))
	bad("signature of inputs, not of metadata", "writer", strings.Replace(replaceSignature(created, ""), `"inputs":{}`, `"inputs":{"signature":"`+signatureOf(created)+`"}`, 1))
	bad("white space", "writer", strings.Replace(created, `,"inputs"`, `, "inputs"`, 1))
	bad("imported", "writer", strings.Replace(created, `AUDIT_CREATED`, `IMPORTED_AUDIT_CREATED`, 1))
	return v
}

func signatureOf(line string) string {
	var l struct{ Metadata struct{ Signature string } }
	must(0, json.Unmarshal([]byte(line), &l))
	return l.Metadata.Signature
}

func replaceSignature(line, by string) string {
	return strings.Replace(line, `"signature":"`+signatureOf(line)+`"`, `"signature":"`+by+`"`, 1)
}
