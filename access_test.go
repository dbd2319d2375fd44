package audit

import (
	"errors"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// The entries of the helpers are those of the documentation's samples, and name
// their resource.
func TestAccessesAreTheDocumentedEntries(t *testing.T) {
	trail := openTemp(t, nil)
	r, err := trail.RecordPHIAccess(t.Context(), Event{
		AgentID: "qa-agent-001", TraceID: "abc123def456", Action: "patient_record_read",
		Outputs: Of(map[string]any{"record_accessed": true}), DurationMS: 45.2,
	}, PHI{UserID: "doctor123", PatientID: "P12345", AccessReason: "treatment", PHIType: "medical_history"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, trail, r, `"event_type":"PHI_ACCESS","agent_id":"qa-agent-001","trace_id":"abc123def456","action":"patient_record_read","inputs":{"patient_id":"P12345"},"outputs":{"record_accessed":true},"duration_ms":45.2,"success":true,"error":null,"metadata":{"user_id":"doctor123","access_reason":"treatment","phi_type":"medical_history"},`,
		`"resource":{"type":"patient","id":"P12345"}`)
	// What stands there already stays, in its place.
	r, err = trail.RecordPHIAccess(t.Context(), Event{
		EventType: PHIAccess, AgentID: "a", Action: "x", Inputs: Raw([]byte(`{"patient_id": "P1", "n": 1.50}`)),
		Metadata: Raw([]byte(`{"ip_address": "192.0.2.7"}`)), Resource: Raw([]byte(`{"id":"P1","ward":"3"}`)),
	}, PHI{"doctor123", "P1", "billing", "account \"1\""})
	if err != nil {
		t.Fatal(err)
	}
	want(t, trail, r, `"inputs":{"patient_id":"P1","n":1.50},`, `"metadata":{"ip_address":"192.0.2.7","user_id":"doctor123","access_reason":"billing","phi_type":"account \"1\""}`,
		`"resource":{"id":"P1","ward":"3","type":"patient"}`)

	chd := CHD{UserID: "cashier456", Terminal: "POS-001", Location: "Store-NY-001", MaskedCard: "****1234"}
	r, err = trail.RecordCHDAccess(t.Context(), Event{AgentID: "qa-agent-001", Action: "payment_processing"}, chd)
	if err != nil {
		t.Fatal(err)
	}
	want(t, trail, r, `"event_type":"CHD_ACCESS"`, `"inputs":{"masked_card":"****1234"},`,
		`"metadata":{"user_id":"cashier456","pos_terminal":"POS-001","location":"Store-NY-001"}`, `"resource":{"type":"card","id":"****1234"}`)
	r, err = trail.RecordCHDAccess(t.Context(), Event{AgentID: "a", Action: "x", Resource: Of(map[string]any{"type": "cardholder", "id": "C1"})}, chd)
	if err != nil {
		t.Fatal(err)
	}
	want(t, trail, r, `"inputs":{"masked_card":"****1234"},`, `"resource":{"id":"C1","type":"cardholder"}`)
}

func want(t *testing.T, trail *Trail, r Receipt, parts ...string) {
	t.Helper()
	e, _, err := trail.entryAt(t.Context(), r.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if !strings.Contains(string(e.Line()), part) {
			t.Errorf("got  %s\nwant %s", e.Line(), part)
		}
	}
}

// An access that does not say who, which record and why is refused with the name
// of what is missing, and the refusal is counted.
func TestAnAccessMustSayWhoWhatAndWhy(t *testing.T) {
	trail := openTemp(t, nil)
	phi := PHI{"doctor123", "P12345", "treatment", "medical_history"}
	chd := CHD{"cashier456", "POS-001", "Store-NY-001", "****1234"}
	ev := Event{AgentID: "a", Action: "x"}
	refused := 0
	for _, tc := range []struct {
		field string
		phi   func(*Event, *PHI)
		chd   func(*Event, *CHD)
	}{
		{"metadata.user_id", func(_ *Event, p *PHI) { p.UserID = "" }, func(_ *Event, c *CHD) { c.UserID = " \t" }},
		{"inputs.patient_id", func(_ *Event, p *PHI) { p.PatientID = "" }, nil},
		{"metadata.access_reason", func(_ *Event, p *PHI) { p.AccessReason = " " }, nil},
		{"metadata.phi_type", func(_ *Event, p *PHI) { p.PHIType = "" }, nil},
		{"metadata.pos_terminal", nil, func(_ *Event, c *CHD) { c.Terminal = "" }},
		{"metadata.location", nil, func(_ *Event, c *CHD) { c.Location = "" }},
		{"inputs.masked_card", nil, func(_ *Event, c *CHD) { c.MaskedCard = "" }},
		{"inputs.masked_card", nil, func(_ *Event, c *CHD) { c.MaskedCard = "4532-1234-5678-9012" }},
		{"event_type", func(ev *Event, _ *PHI) { ev.EventType = ToolUse }, func(ev *Event, _ *CHD) { ev.EventType = PHIAccess }},
		{"metadata.user_id", func(ev *Event, _ *PHI) { ev.Metadata = Of(map[string]any{"user_id": "nurse789"}) }, nil},
		{"metadata.user_id", func(ev *Event, _ *PHI) { ev.Metadata = Of(map[string]any{"user_id": 7}) }, nil},
		{"metadata.user_id", func(_ *Event, p *PHI) { p.UserID = "\xff" }, nil},
		{"resource.id", func(ev *Event, _ *PHI) { ev.Resource = Of(map[string]any{"id": "P2"}) }, nil},
		{"resource.type", func(ev *Event, _ *PHI) { ev.Resource = Of(map[string]any{"type": "encounter"}) }, nil},
		{"inputs", func(ev *Event, _ *PHI) { ev.Inputs = Raw([]byte(`{"a":`)) }, nil},
		{"metadata", nil, func(ev *Event, _ *CHD) { ev.Metadata = Raw([]byte(`{"a":1,"a":2}`)) }},
	} {
		check := func(err error) {
			t.Helper()
			refused++
			field, ok := errors.AsType[*entry.FieldError](err)
			if !errors.Is(err, ErrRefused) || !ok || field.Field != tc.field || strings.Contains(err.Error(), "4532") || strings.Contains(err.Error(), "nurse789") {
				t.Errorf("%s: %v", tc.field, err)
			}
		}
		if tc.phi != nil {
			ev, phi := ev, phi
			tc.phi(&ev, &phi)
			_, err := trail.RecordPHIAccess(t.Context(), ev, phi)
			check(err)
		}
		if tc.chd != nil {
			ev, chd := ev, chd
			tc.chd(&ev, &chd)
			_, err := trail.RecordCHDAccess(t.Context(), ev, chd)
			check(err)
		}
	}
	err := trail.refused.tell(func(o ownEntry) error {
		if got := o.outputs.(map[string]any)["count"]; got != int64(refused) {
			t.Errorf("%v refusals are counted of %d", got, refused)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if entries, err := collect(trail.Query(t.Context(), Query{})); err != nil || len(entries) != 0 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.RecordPHIAccess(t.Context(), ev, PHI{}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestAMaskedCardIsMasked(t *testing.T) {
	for card, shows := range map[string]bool{
		"****1234": false, "1234": false, "************1234": false, "XXXX-XXXX-XXXX-1234": false, "4111 11** **** 1111": false,
		"41111111****1111": false, "•••• 1234": false, "4111…1111": false, "": false, "token": false,
		"4111111111111111": true, "4111 1111 1111 1111": true, "4111-1111-1111-1111": true, "4532-1234-5678-9012": true, "378282246310005": true,
		"411111111***1111": true, "41111111*1*1*1*1*1": true, "4111_1111_1111_1111": true, "４１１１１１１１１１１１１１１１": true,
		"4a1b1c1d1e1f1g1h1i": true, "501800000009": true, "4111*1111*1111*1111": true,
	} {
		if got := showsCard(card); got != shows {
			t.Errorf("%q shows a card: %v", card, got)
		}
	}
}
