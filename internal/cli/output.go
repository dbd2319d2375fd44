package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/export"
)

// entryFormats are how entries are shown.
func entryFormats() *choice { return newChoice("table", "json", "jsonl", "csv") }

// addFormat adds --format.
func addFormat(cmd *cobra.Command, c *choice) {
	cmd.Flags().Var(c, "format", "how the result is shown")
	complete(cmd, "format", c.choices...)
}

// complete offers the words of a flag to the shell.
func complete(cmd *cobra.Command, flag string, words ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag was not added before: no data leads here
	}
}

// entryWriter writes entries in one format. Flush shows what was written so
// far, Close writes what ends it.
type entryWriter interface {
	Write(audit.Entry) error
	Flush() error
	Close() error
}

func (a *app) entryWriter(format string) entryWriter {
	out := bufio.NewWriter(a.stdout)
	switch format {
	case "json":
		return &jsonEntries{out: out}
	case "jsonl":
		return lineEntries{out}
	case "csv":
		return &csvEntries{buffer: out, out: csv.NewWriter(out)}
	}
	return &tableEntries{buffer: out, table: newTable(a.stdout, out,
		column{title: "INDEX", right: true}, column{title: "TIME"}, column{title: "TYPE", least: 8},
		column{title: "AGENT", least: 8}, column{title: "ACTION", least: 12}, column{title: "MS", right: true},
		column{title: "OK"}, column{title: "USER", least: 8})}
}

// lineEntries gives lines exactly as recorded, opened where they are sealed.
type lineEntries struct{ out *bufio.Writer }

func (w lineEntries) Write(e audit.Entry) error {
	w.out.Write(e.View())
	return w.out.WriteByte('\n')
}
func (w lineEntries) Flush() error { return w.out.Flush() }
func (w lineEntries) Close() error { return w.out.Flush() }

// jsonEntries gives an array of {"index","digest","entry"}; entry is the line
// exactly as recorded, opened where it is sealed; the digest is the stored line's.
type jsonEntries struct {
	out *bufio.Writer
	n   int
}

func (w *jsonEntries) Write(e audit.Entry) error {
	if w.n++; w.n == 1 {
		w.out.WriteString("[\n")
	} else {
		w.out.WriteString(",\n")
	}
	digest := e.Digest()
	head := append(w.out.AvailableBuffer(), `{"index":`...)
	head = strconv.AppendInt(head, e.Index, 10)
	head = append(head, `,"digest":"`...)
	head = hex.AppendEncode(head, digest[:])
	w.out.Write(append(head, `","entry":`...))
	w.out.Write(e.View())
	return w.out.WriteByte('}')
}

func (w *jsonEntries) Flush() error { return w.out.Flush() }

func (w *jsonEntries) Close() error {
	if w.n == 0 {
		w.out.WriteString("[]\n")
	} else {
		w.out.WriteString("\n]\n")
	}
	return w.out.Flush()
}

// csvEntries gives RFC 4180 CSV with a header.
type csvEntries struct {
	buffer *bufio.Writer
	out    *csv.Writer
	begun  bool
}

func (w *csvEntries) header() error {
	if w.begun {
		return nil
	}
	w.begun = true
	return w.out.Write(export.CSVHeader)
}

func (w *csvEntries) Write(e audit.Entry) error {
	if err := w.header(); err != nil {
		return err
	}
	return w.out.Write(export.CSVRow(e))
}

func (w *csvEntries) Close() error {
	if err := w.header(); err != nil {
		return err
	}
	return w.Flush()
}

func (w *csvEntries) Flush() error {
	w.out.Flush()
	if err := w.out.Error(); err != nil {
		return err
	}
	return w.buffer.Flush()
}

// tableEntries is for people.
type tableEntries struct {
	buffer *bufio.Writer
	table  *table
}

func (w *tableEntries) Write(e audit.Entry) error {
	style := ""
	if !e.Success {
		style = red
	}
	index := cell{strconv.FormatInt(e.Index, 10), ""}
	return w.table.row(index, text(e.Timestamp.UTC().Format(entry.TimeLayout)), text(e.EventType), text(e.AgentID),
		text(e.Action), cell{strconv.FormatFloat(e.DurationMS, 'f', 1, 64), ""}, cell{okText(e), style}, text(cmp.Or(e.Metadata.Text("user_id"), e.Metadata.Text("user_id_hash"))))
}

// okText says how an entry ended: yes, no, or the outcome that says more.
func okText(e audit.Entry) string {
	switch {
	case e.Outcome != "":
		return text(e.Outcome).text
	case e.Success:
		return "yes"
	}
	return "no"
}

func (w *tableEntries) Flush() error { return w.Close() }

// Close writes the rows that wait.
func (w *tableEntries) Close() error {
	if err := w.table.flush(); err != nil {
		return err
	}
	return w.buffer.Flush()
}

// printJSON writes one value, indented for people.
func printJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
