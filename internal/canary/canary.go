// Package canary has values that must never be found in a file of the product, and
// looks for them, in every encoding in which they could be there. It is for tests of
// whatever brings events into a trail.
package canary

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Canary is a value that must be in no file.
type Canary struct {
	Core string // what is looked for
	Text string // how a caller writes it
}

// All are the canaries. They are put together here, so that no scanner takes this
// file for a leak.
var All = []Canary{
	{"4111111111111111", "4111111111111111"},
	{"5500005555555559", "5500-0055-5555-5559"},
	{"378282246310005", "3782 822463 10005"},
	{"XQ7canaryPassw0rd", "password=XQ7canary" + "Passw0rd"},
	{"k2JcanaryToken9aQ4wErT6yUi8", "Authorization: Bearer k2Jcanary" + "Token9aQ4wErT6yUi8"},
	{"AKIA" + "Q7CANARY3XWDPLM2", "AKIA" + "Q7CANARY3XWDPLM2"},
	{"MC4CAQAwBQYDK2VwBCIEIcanary", "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIcanary7Wt1cXn0\n-----END " + "PRIVATE KEY-----"},
}

// Text is all of them, and one across each border of the usual buffers.
func Text() string {
	var b strings.Builder
	for _, c := range All {
		b.WriteString("said: " + c.Text + "\n")
	}
	for _, border := range []int{4 << 10, 32 << 10, 64 << 10} {
		b.WriteString(strings.Repeat("lorem ipsum ", (border-b.Len())/12))
		b.WriteString(" " + All[0].Text + " " + All[3].Text + " ")
	}
	return b.String()
}

// Object has them in every form that JSON has.
func Object() map[string]any {
	inner, _ := json.Marshal(map[string]any{"card": map[string]any{"number": All[1].Text, "cvv": "908"}, "why": All[4].Text})
	nested, _ := json.Marshal(map[string]any{"payload": string(inner)})
	return map[string]any{
		"text": Text(), "number": json.Number(All[0].Core), "list": []any{All[1].Text, 1}, All[0].Text: 1,
		"json": string(inner), "nested": string(nested), "password": "XQ7canary" + "Passw0rd", "card_number": All[2].Text,
		"escaped": "x " + All[0].Text + "\u2028 \"quoted\"",
	}
}

// EscapedObject is Object with every character of strings as an escape.
func EscapedObject() string {
	return `{"escaped":"` + regexp.MustCompile(`.`).ReplaceAllStringFunc(All[0].Text, func(s string) string { return fmt.Sprintf(`\u%04x`, s[0]) }) + `"}`
}

type needle struct{ what, text string }

// needles are the canaries' encodings.
func needles() []needle {
	var out []needle
	add := func(what, s string) { out = append(out, needle{what, strings.ToLower(s)}) }
	for _, c := range All {
		for _, s := range []string{c.Core, strings.TrimPrefix(c.Text, "password=")} {
			add("plain", s)
			add("hex", hex.EncodeToString([]byte(s)))
			add("URL", url.QueryEscape(s))
			var u strings.Builder
			for _, b := range []byte(s) {
				fmt.Fprintf(&u, `\u%04x`, b)
			}
			add("JSON escapes", u.String())
			for shift := range 3 { // base64 has three forms, by where it begins
				e := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + s))
				add("base64", strings.TrimRight(e, "=")[4:len(strings.TrimRight(e, "="))-2])
			}
		}
	}
	return out
}

// Searched looks for canaries, and counts what it looked into.
type Searched struct{ Files, Bytes int }

// Dir looks for the canaries in every file and name below dir.
func (s *Searched) Dir(t *testing.T, when, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type()&fs.ModeSocket != 0 {
			return nil // it may go meanwhile
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil
		}
		s.Files++
		if strings.HasSuffix(name, ".zst") {
			r, err := zstd.NewReader(bytes.NewReader(data))
			if err != nil {
				return err
			}
			defer r.Close()
			plain, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			data = append(data, plain...)
		}
		s.Bytes += len(data)
		s.In(t, when+": "+strings.TrimPrefix(name, dir), append(data, filepath.Base(name)...))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// In looks for the canaries in data.
func (s *Searched) In(t *testing.T, where string, data []byte) {
	t.Helper()
	data = bytes.ToLower(data)
	for _, n := range needles() {
		if at := bytes.Index(data, []byte(n.text)); at >= 0 {
			t.Errorf("%s: %s of %q: %.200q", where, n.what, n.text, data[max(0, at-80):])
			return
		}
	}
}
