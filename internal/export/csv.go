package export

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// CSVHeader are the columns of Row. Columns are added at the end only.
var CSVHeader = []string{
	"index", "timestamp", "event_type", "agent_id", "trace_id", "action", "inputs", "outputs", "duration_ms", "success",
	"error", "metadata", "event_id", "recorded_at", "span_id", "parent_span_id", "resource", "outcome", "authority", "purpose",
	"policy", "digest",
}

// CSVRow is an entry as a row, each cell as Cell gives it.
func CSVRow(e entry.Entry) []string {
	object := func(o entry.Object) string {
		if o.IsZero() {
			return ""
		}
		b, err := o.AppendJSON(nil)
		if err != nil {
			return ""
		}
		return string(b)
	}
	failure := ""
	if e.Error != nil {
		failure = *e.Error
	}
	digest := e.Digest()
	row := []string{
		strconv.FormatInt(e.Index, 10), e.Timestamp.UTC().Format(entry.TimeLayout), e.EventType, e.AgentID, e.TraceID, e.Action,
		object(e.Inputs), object(e.Outputs), strconv.FormatFloat(e.DurationMS, 'f', -1, 64), strconv.FormatBool(e.Success),
		failure, object(e.Metadata), e.EventID, e.RecordedAt.UTC().Format(entry.TimeLayout), e.SpanID, e.ParentSpanID,
		object(e.Resource), e.Outcome, object(e.Authority), e.Purpose, object(e.Policy), hex.EncodeToString(digest[:]),
	}
	for i, s := range row {
		row[i] = CSVCell(s)
	}
	return row
}

// CSVCell puts an apostrophe before what a spreadsheet would take for a formula and
// run.
func CSVCell(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r", s[0]) >= 0 {
		return "'" + s
	}
	return s
}
