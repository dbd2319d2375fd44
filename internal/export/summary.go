package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// shownEntries is how many entries the summary shows in full: what a person reads,
// and a browser opens. The other files have all of them.
const shownEntries = 1000

// summary is the page for the person: what kind of entries, when, what for, and the
// entries themselves.
type summary struct {
	types, agents, purposes map[string]int
	first, last             time.Time
	rows                    bytes.Buffer
	shown                   int
}

func newSummary() summary {
	return summary{types: map[string]int{}, agents: map[string]int{}, purposes: map[string]int{}}
}

func (s *summary) add(item Item) {
	e := item.View
	s.types[e.EventType]++
	s.agents[e.AgentID]++
	if e.Purpose != "" {
		s.purposes[e.Purpose]++
	}
	if s.first.IsZero() || e.Timestamp.Before(s.first) {
		s.first = e.Timestamp
	}
	if e.Timestamp.After(s.last) {
		s.last = e.Timestamp
	}
	if s.shown++; s.shown > shownEntries {
		return
	}
	state := "proved"
	switch {
	case !item.Proved:
		state = "masked, without proof: it holds other people's data"
	case item.Shared:
		state = "proved; it concerns others too"
	}
	fmt.Fprintf(&s.rows, "<article><h3>%d · %s · %s</h3><p>%s by agent %s. You are %s here. %s</p>",
		item.Index, e.Timestamp.UTC().Format("2006-01-02 15:04:05 UTC"), safe(e.EventType), safe(e.Action), safe(e.AgentID),
		safe(strings.Join(item.Roles, " and ")), safe(state))
	s.rows.WriteString("<dl>")
	for _, f := range []struct {
		name string
		o    entry.Object
	}{{"Inputs", e.Inputs}, {"Outputs", e.Outputs}, {"About", e.Resource}, {"Details", e.Metadata}} {
		s.object(f.name, f.o)
	}
	if e.Error != nil {
		s.fact("Error", *e.Error)
	}
	s.fact("Purpose", e.Purpose)
	for _, pointer := range slices.Sorted(maps.Keys(item.Hidden)) {
		s.fact("Not shown", pointer+": "+string(item.Hidden[pointer]))
	}
	s.rows.WriteString("</dl></article>\n")
}

func (s *summary) object(name string, o entry.Object) {
	text, err := o.AppendJSON(nil)
	if err != nil || string(text) == "{}" {
		return
	}
	var b bytes.Buffer
	if json.Indent(&b, text, "", "  ") != nil {
		return
	}
	lines := strings.Split(b.String(), "\n")
	for i, l := range lines {
		lines[i] = safe(l)
	}
	fmt.Fprintf(&s.rows, "<dt>%s</dt><dd><pre>%s</pre></dd>", name, strings.Join(lines, "\n"))
}

func (s *summary) fact(name, value string) {
	if value != "" {
		fmt.Fprintf(&s.rows, "<dt>%s</dt><dd>%s</dd>", name, safe(value))
	}
}

// safe is text as it may stand in the page: no markup, and nothing invisible that
// changes how the text around it is read.
func safe(s string) string { return html.EscapeString(report.Printable(s)) }

const style = `body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}
h1,h2,h3{line-height:1.25}h3{font-size:1rem;margin:0 0 .25rem}article{border-top:1px solid #bbb;padding:1rem 0}
table{border-collapse:collapse}td,th{padding:.15rem 1rem .15rem 0;text-align:left;vertical-align:top}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font-size:.85rem}dt{font-weight:600}dd{margin:0 0 .5rem}
code{overflow-wrap:anywhere}@media print{body{margin:0;max-width:none}article{break-inside:avoid}}`

// policy keeps a browser from loading or running anything but this page's style.
var contentPolicy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}()

// write writes the page. It has no script, and loads nothing.
func (s *summary) write(w io.Writer, m Manifest) {
	p := func(format string, args ...any) {
		for i, a := range args {
			if text, ok := a.(string); ok {
				args[i] = safe(text)
			}
		}
		fmt.Fprintf(w, format, args...)
	}
	io.WriteString(w, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\""+
		contentPolicy+"\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>Your data in an audit trail</title>\n<style>"+style+"</style></head><body>\n")
	p("<h1>Your data in an audit trail</h1>\n<p>These are the entries of the audit trail <code>%s</code> in which you, <strong>%s</strong>, have done something or which hold data about you. The export was made at %s and covers the trail's first %d entries.</p>\n",
		m.Origin, m.User, m.Generated, m.Size)
	for _, what := range m.Incomplete {
		p("<p><strong>Not whole:</strong> %s</p>\n", what)
	}
	p("<h2>In short</h2>\n<table><tr><th>Entries</th><td>%d</td></tr>", m.Entries)
	if m.Entries > 0 {
		p("<tr><th>From, to</th><td>%s, %s</td></tr>", s.first.UTC().Format("2006-01-02 15:04 UTC"), s.last.UTC().Format("2006-01-02 15:04 UTC"))
	}
	p("<tr><th>With a proof</th><td>%d</td></tr><tr><th>Masked, without one</th><td>%d</td></tr><tr><th>Concern others too</th><td>%d</td></tr>", m.Proved, m.Masked, m.Shared)
	p("<tr><th>Fields of others that stay sealed</th><td>%d</td></tr><tr><th>Fields that were erased</th><td>%d</td></tr><tr><th>Fields that do not open</th><td>%d</td></tr></table>\n", m.Withheld, m.Erased, m.Unopened)
	for _, t := range []struct {
		title string
		count map[string]int
	}{{"What happened", s.types}, {"Which agents", s.agents}, {"What for", s.purposes}} {
		if len(t.count) == 0 {
			continue
		}
		p("<h2>%s</h2>\n<table>", t.title)
		names := slices.SortedFunc(maps.Keys(t.count), func(a, b string) int {
			if d := t.count[b] - t.count[a]; d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
		for _, name := range names[:min(len(names), 100)] {
			p("<tr><td>%s</td><td>%d</td></tr>", name, t.count[name])
		}
		io.WriteString(w, "</table>\n")
	}
	p("<h2>How to check it</h2>\n<p>Put the files of this export into a folder and run <code>python3 verify.py --key VKEY</code> there; VKEY is the trail's key, from its owner. It needs no program of ours. Without <code>--key</code> it takes the key of this export, <code>%s</code>, and then shows only that the export is consistent with itself.</p>\n", m.VKey)
	io.WriteString(w, "<p>An entry that is <em>proved</em> is shown as it was recorded: its line is in the trail's signed tree, and sealed fields open with the keys in <code>disclosures.jsonl</code>. Other people's sealed fields stay sealed. An entry that is <em>masked</em> holds other people's data in clear; it is shown without that data, and has no proof, since a digest beside a masked value would let it be guessed.</p>\n")
	io.WriteString(w, "<h2>The entries</h2>\n")
	if s.shown > shownEntries {
		p("<p>The first %d of %d; <code>entries.json</code> and <code>entries.csv</code> have all of them.</p>\n", shownEntries, s.shown)
	}
	_, _ = w.Write(s.rows.Bytes())
	io.WriteString(w, "</body></html>\n")
}
