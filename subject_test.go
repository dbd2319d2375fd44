package audit

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// exported is an export as its receiver has it.
type exported struct {
	manifest UserExport
	file     string // the zip
	text     map[string]string
	entries  []exportedEntry
}

type exportedEntry struct {
	Index  int64
	Roles  []string
	Proof  string
	Digest string
	Shared bool
	Hidden map[string]string
	Entry  map[string]any
	raw    string
}

func exportUser(t *testing.T, trail *Trail, user string) exported {
	t.Helper()
	x := exported{file: filepath.Join(t.TempDir(), "export.zip"), text: map[string]string{}}
	var b bytes.Buffer
	var err error
	if x.manifest, err = trail.ExportUser(context.Background(), user, &b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		x.text[f.Name] = string(text)
		// A zip has two seconds and no zone.
		if at, err := time.Parse(time.RFC3339, x.manifest.Generated); err != nil || f.Modified.Sub(at).Abs() > 2*time.Second {
			t.Errorf("%s is of %v, the export of %s", f.Name, f.Modified, x.manifest.Generated)
		}
	}
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(x.text["entries.json"]), &raw); err != nil {
		t.Fatal(err)
	}
	for _, r := range raw {
		e := exportedEntry{raw: string(r)}
		if err := json.Unmarshal(r, &e); err != nil {
			t.Fatal(err)
		}
		x.entries = append(x.entries, e)
	}
	return x
}

// check has the receiver's script look at an export; it gives what the script says.
func (x exported) check(t *testing.T, args ...string) (string, error) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("skipped: no python3 on this machine; the receiver's script was not run")
	}
	script := filepath.Join(t.TempDir(), "verify.py")
	if err := os.WriteFile(script, []byte(x.text["verify.py"]), 0o600); err != nil {
		t.Fatal(err)
	}
	// -I: nothing but the standard library.
	out, err := exec.Command(python, append([]string{"-I", script, x.file}, args...)...).CombinedOutput()
	return string(out), err
}

func accessEvent(actor, patient string) Event {
	return Event{EventType: PHIAccess, AgentID: "emr", TraceID: "ward", Action: "patient_record_read", Purpose: "treatment",
		Inputs:   Of(map[string]any{"patient_id": patient}),
		Outputs:  Of(map[string]any{"finding": "canary of " + patient}),
		Metadata: Of(map[string]any{"user_id": actor, "ip_address": "192.0.2.7", "access_reason": "round for " + patient, "environment": "test"}),
		Resource: Of(map[string]any{"type": "patient", "id": patient})}
}

// A person is given what is theirs and nothing that is another's, in every kind of
// trail, and the receiver's script proves all that is said to be proved.
func TestExportUserGivesEachTheirOwn(t *testing.T) {
	type want struct {
		index  int64 // among the recorded
		roles  string
		proof  string
		has    string // in the entry as it is shown
		not    string
		hidden string
		shared bool
	}
	// The entries, by position: what mia did; what noah did for mia; dr on P1; mia on
	// P1; somebody else.
	for _, tc := range []struct {
		profile string
		encrypt bool
		mia     []want
		p1      []want
	}{
		{"plain", false, []want{
			{0, "subject actor", "proved", "canary of mia", "", "", false},
			{1, "subject", "masked", "canary of noah", `"noah"`, "", true},
			{3, "actor", "masked", `"mia"`, "P1", "", false},
			{5, "subject actor", "proved", "canary of ", "", "", false},
		}, []want{
			{2, "subject", "proved", "canary of P1", "", "", false},
			{3, "subject", "proved", "canary of P1", "", "", false},
		}},
		{"gdpr", false, []want{
			{0, "subject actor", "proved", "canary of mia", "", "", false},
			{1, "subject", "proved", "canary of noah", `"noah"`, "/metadata/user_id", true},
			{3, "actor", "proved", `"mia"`, "P1", "/inputs", false},
			{5, "subject actor", "proved", "canary of ", "", "", false},
		}, []want{
			{2, "subject", "proved", "canary of P1", "", "", false},
			{3, "subject", "proved", "canary of P1", "", "", false},
		}},
		{"hipaa", true, []want{
			{0, "subject actor", "proved", "canary of mia", "", "", false},
			{1, "subject", "proved", "canary of noah", `"noah"`, "/metadata/user_id", true},
			{3, "actor", "proved", `"mia"`, "P1", "/resource/id", false},
			{5, "subject actor", "proved", "canary of ", "", "", false},
		}, []want{
			{2, "subject", "proved", "canary of P1", "", "", false},
			{3, "subject", "proved", "canary of P1", "", "", false},
		}},
	} {
		t.Run(fmt.Sprint(tc.profile, tc.encrypt), func(t *testing.T) {
			p := rules(t, policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"book"}}, Subjects: []string{"/inputs/for"}}}})
			path, o := profileTrail(t, tc.profile, Options{Encrypt: tc.encrypt, Policy: p})
			o.Encrypt = false
			trail := openWith(t, path, o)
			pseudonym, err := trail.Pseudonymize(context.Background(), "mia")
			if err != nil {
				t.Fatal(err)
			}
			book := personalEvent("noah", "t2")
			book.Action, book.Inputs = "tool_use:book", Of(map[string]any{"for": "mia", "note": "canary of noah"})
			hashed := personalEvent("", "t3")
			hashed.Metadata = Of(map[string]any{"user_id_hash": pseudonym})
			first := trail.journal.Next()
			mustRecord(t, trail, personalEvent("mia", "t1"), book, accessEvent("dr", "P1"), accessEvent("mia", "P1"), accessEvent("dr", "P2"), hashed)
			for user, wants := range map[string][]want{"mia": tc.mia, "P1": tc.p1, pseudonym: {tc.mia[3]}, "patient/P1": tc.p1} {
				x := exportUser(t, trail, user)
				if len(x.entries) != len(wants) {
					t.Fatalf("%s: %d entries, want %d:\n%s", user, len(x.entries), len(wants), x.text["entries.json"])
				}
				for i, w := range wants {
					e := x.entries[i]
					if e.Index != first+w.index || strings.Join(e.Roles, " ") != w.roles || e.Proof != w.proof || e.Shared != w.shared {
						t.Errorf("%s: entry %d: %+v, want %+v", user, i, e, w)
					}
					if !strings.Contains(e.raw, w.has) || w.not != "" && strings.Contains(e.raw, w.not) {
						t.Errorf("%s: entry %d: %s", user, i, e.raw)
					}
					if w.hidden != "" && e.Hidden[w.hidden] != "withheld" || w.hidden == "" && len(e.Hidden) > 0 {
						t.Errorf("%s: entry %d: hidden %v, want %s", user, i, e.Hidden, w.hidden)
					}
					if (e.Digest != "") != (w.proof == "proved") || (e.Entry["event_id"] != nil) != (w.proof == "proved") {
						t.Errorf("%s: entry %d is %s: %s", user, i, w.proof, e.raw)
					}
				}
				for name, text := range x.text {
					if strings.Contains(text, "canary of P2") || user != "P1" && user != "patient/P1" && strings.Contains(text, "canary of P1") {
						t.Errorf("%s: %s has another's data", user, name)
					}
				}
				if out, err := x.check(t, "--key", trail.VKey()); err != nil || !strings.Contains(out, fmt.Sprintf("%d of %d entries", x.manifest.Proved, len(wants))) {
					t.Errorf("%s: the script: %v\n%s", user, err, out)
				}
			}
			if n := len(found(t, trail, Query{EventTypes: []string{"AUDIT_EXPORT"}})); n != 4 {
				t.Errorf("%d entries about 4 exports", n)
			}
		})
	}
}

// What the script is given in place of the export does not pass: another key, a
// changed value, a proof of another entry.
func TestExportedScriptFindsChanges(t *testing.T) {
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t1"), personalEvent("mia", "t1"), personalEvent("noah", "t1"))
	other := openTemp(t, nil)
	x := exportUser(t, trail, "mia")
	if out, err := x.check(t); err != nil || !strings.Contains(out, "from the export itself") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := x.check(t, "--key", other.VKey()); err == nil {
		t.Errorf("another trail's key: %s", out)
	}
	for name, change := range map[string]func(text map[string]string){
		"value": func(text map[string]string) {
			text["entries.json"] = strings.Replace(text["entries.json"], "canary of mia", "canary of Mia", 1)
		},
		"entry left out": func(text map[string]string) {
			text["disclosures.jsonl"] = text["disclosures.jsonl"][strings.Index(text["disclosures.jsonl"], "\n")+1:]
		},
		"index": func(text map[string]string) { text["disclosures.jsonl"] = swapIndex(text["disclosures.jsonl"]) },
		"row": func(text map[string]string) {
			text["entries.csv"] = text["entries.csv"][:strings.LastIndex(strings.TrimSpace(text["entries.csv"]), "\n")+1]
		},
		"proof off": func(text map[string]string) {
			text["entries.json"] = strings.Replace(text["entries.json"], `"proof":"proved"`, `"proof":"masked"`, 1)
		},
	} {
		changed := exported{file: filepath.Join(t.TempDir(), "changed.zip"), text: map[string]string{}}
		for n, text := range x.text {
			changed.text[n] = text
		}
		change(changed.text)
		for honest, m := range map[bool]UserExport{true: x.manifest, false: resealed(x.manifest, changed.text)} {
			changed.write(t, m)
			if out, err := changed.check(t, "--key", trail.VKey()); err == nil {
				t.Errorf("%s (manifest kept: %v): %s", name, honest, out)
			}
		}
	}
}

func swapIndex(text string) string {
	indexes := regexp.MustCompile(`"index":(\d+)`).FindAllString(text, 2)
	return strings.NewReplacer(indexes[0], indexes[1], indexes[1], indexes[0]).Replace(text)
}

// resealed is the manifest with the digests of changed files, as a forger writes it.
func resealed(m UserExport, text map[string]string) UserExport {
	files := map[string]string{}
	for name := range m.Files {
		files[name] = fmt.Sprintf("%x", sha256.Sum256([]byte(text[name])))
	}
	m.Files = files
	return m
}

func (x exported) write(t *testing.T, m UserExport) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, s := range x.text {
		if name == "manifest.json" {
			s = string(text)
		}
		w, err := z.Create(name)
		if err == nil {
			_, err = io.WriteString(w, s)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A number of nine digits that an export masks can't be found from the export and
// the trail's public tiles: whoever tries all numbers has nothing to compare with.
// The same search with the line's random identifier finds it, so that the search is
// one.
func TestMaskedNumberCantBeGuessed(t *testing.T) {
	const number, from, to = 123456789, 123456000, 123457000 // a part of the space, around it
	trail := openTemp(t, nil)
	ev := accessEvent("mia", "P1")
	ev.Inputs = Of(map[string]any{"insurance": fmt.Sprint(number)})
	ev.IdempotencyKey = "k1"
	mustRecord(t, trail, ev)
	x := exportUser(t, trail, "mia")
	if len(x.entries) != 1 || x.entries[0].Proof != "masked" {
		t.Fatalf("%+v", x.entries)
	}
	all := found(t, trail, Query{})
	line := string(all[0].Line())
	public := map[[32]byte]bool{}
	err := filepath.WalkDir(filepath.Join(trail.dir, "tile", "entries"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for ; len(b) >= 34; b = b[34:] {
			public[[32]byte(b[2:34])] = true
		}
		return err
	})
	if err != nil || len(public) == 0 {
		t.Fatalf("%d digests, %v", len(public), err)
	}
	// The attacker knows the whole line but for the number and what is given.
	search := func(template string) bool {
		for n := from; n < to; n++ {
			if public[entry.Digest([]byte(strings.Replace(template, fmt.Sprint(number), fmt.Sprint(n), 1)))] {
				return true
			}
		}
		return false
	}
	if !search(line) {
		t.Fatal("the search finds nothing even with the whole line")
	}
	id := all[0].EventID
	tokens := map[string]bool{}
	for name, text := range x.text {
		if strings.Contains(text, fmt.Sprint(number)) || strings.Contains(text, id) || strings.Contains(text, id[19:]) || strings.Contains(text, `"k1"`) {
			t.Errorf("%s has what was masked, or what tells it", name)
		}
		digest := all[0].Digest()
		if strings.Contains(text, fmt.Sprintf("%x", digest)) {
			t.Errorf("%s has the digest of a masked line", name)
		}
		if name == "verify.py" {
			continue
		}
		for _, token := range regexp.MustCompile(`[0-9A-Za-z+/_=-]{16,}`).FindAllString(text, -1) {
			tokens[token] = true
		}
	}
	// Whatever looks random in the export is no identifier of that line either.
	for token := range tokens {
		if search(strings.Replace(line, id, token, 1)) {
			t.Errorf("%s stands in for the masked line's identifier", token)
		}
	}
	if x.text["disclosures.jsonl"] != "" {
		t.Error("a masked entry has a proof")
	}
}

// An erased person gets what was kept, the accesses in which they were the actor,
// and a shared field that went with somebody else says that it is erased.
func TestExportAfterErasure(t *testing.T) {
	ctx := context.Background()
	p := rules(t, policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"book"}}, Subjects: []string{"/inputs/for"}}}})
	path, o := profileTrail(t, "gdpr", Options{Policy: p})
	trail := openWith(t, path, o)
	book := personalEvent("noah", "t2")
	book.Action, book.Inputs = "tool_use:book", Of(map[string]any{"for": "mia"})
	mustRecord(t, trail, personalEvent("mia", "t1"), book, accessEvent("mia", "P1"), accessEvent("noah", "P1"))
	if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "asked for it"}); err != nil {
		t.Fatal(err)
	}
	x := exportUser(t, trail, "mia")
	if len(x.entries) != 1 || strings.Join(x.entries[0].Roles, " ") != "actor" {
		t.Errorf("mia: %+v", x.entries)
	}
	if out, err := x.check(t, "--key", trail.VKey()); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// noah's own entry for mia is sealed for both: its actor is not readable any more.
	x = exportUser(t, trail, "noah")
	if len(x.entries) != 1 || x.entries[0].Entry["event_type"] != PHIAccess {
		t.Errorf("noah: %+v", x.entries)
	}
	// P1's access by mia stays P1's.
	x = exportUser(t, trail, "P1")
	if len(x.entries) != 2 || x.manifest.Erased != 0 || x.manifest.Proved != 2 {
		t.Errorf("P1: %+v", x.manifest)
	}
}

// The readers of an export are not attacked by what an agent wrote.
func TestExportIsInert(t *testing.T) {
	trail := openTemp(t, nil)
	ev := personalEvent("mia", `=HYPERLINK("http://example.invalid")`)
	ev.Action = "+cmd|' /C calc'!A0"
	ev.AgentID = "</pre><script>alert(1)</script>"
	ev.Inputs = Of(map[string]any{"text": "<img src=x onerror=alert(1)>\u202e"})
	wrong := "@SUM(1)"
	ev.Error = &wrong
	mustRecord(t, trail, ev)
	x := exportUser(t, trail, "mia")
	rows, err := csv.NewReader(strings.NewReader(x.text["entries.csv"])).ReadAll()
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	for i, cell := range rows[1] {
		if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
			t.Errorf("column %s begins with %q", rows[0][i], cell[:1])
		}
	}
	page := x.text["summary.html"]
	for _, bad := range []string{"<script", "<img", "\u202e", "javascript:"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(page, "Content-Security-Policy") || !strings.Contains(page, "default-src &#39;none&#39;") && !strings.Contains(page, "default-src 'none'") {
		t.Error("the page has no policy of what it may load")
	}
	if out, err := x.check(t, "--key", trail.VKey()); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Without the key nobody's entries can be told from others': an error, not an empty
// export.
func TestExportNeedsTheKey(t *testing.T) {
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t1"))
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	reader := openWith(t, path, &Options{ReadOnly: true, MustExist: true, KEK: testKEK(t, 9), StateDir: o.StateDir})
	if _, err := reader.ExportUser(context.Background(), "mia", io.Discard); !errors.Is(err, ErrNoKey) {
		t.Errorf("export without the key: %v", err)
	}
	if _, err := reader.Disclose(context.Background(), 1, "/inputs"); !errors.Is(err, ErrNoKey) {
		t.Errorf("disclosure without the key: %v", err)
	}
	if _, err := reader.ExportUser(context.Background(), "", io.Discard); err == nil {
		t.Error("an export of nobody")
	}
}
