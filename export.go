package audit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// ComplianceReport is the documented report over a whole trail.
type ComplianceReport = report.Report

// ComplianceReport makes the report. It is one reading, recorded as
// AUDIT_REPORT. Broken lines and entries that are missing are counted in it and
// are no error.
func (t *Trail) ComplianceReport(ctx context.Context) (*ComplianceReport, error) {
	var b *report.Builder
	err := t.report(ctx, "compliance", func(m report.Meta) reportBuilder {
		b = report.New(m)
		return b
	})
	if err != nil {
		return nil, err
	}
	return b.Report(), nil
}

// GapReport says for each agent what its entries do not say.
type GapReport = report.Gaps

// GapReport makes the gap report over a whole trail: how many of an agent's
// entries have all six fields of PCI DSS 10.2.2, a user of their own, a purpose and
// content; what has begun and never ended; what was denied, late or backdated; and
// the setting that would mend each (docs/identity.md). It is one reading, recorded
// as AUDIT_REPORT. Broken lines and entries that are missing are counted in it and
// are no error.
func (t *Trail) GapReport(ctx context.Context) (*GapReport, error) {
	var b *report.GapBuilder
	err := t.report(ctx, "gaps", func(m report.Meta) reportBuilder {
		b = report.NewGaps(m)
		return b
	})
	if err != nil {
		return nil, err
	}
	return b.Report(), nil
}

// reportBuilder is told of everything that a trail has.
type reportBuilder interface {
	Add(Entry)
	AddBroken(index int64)
	AddMissing(report.Gap)
}

// report records that a report is made, and tells its builder of all entries.
func (t *Trail) report(ctx context.Context, kind string, begin func(report.Meta) reportBuilder) error {
	call := "ComplianceReport"
	if kind == "gaps" {
		call = "GapReport"
	}
	if err := t.authorizeAll(ctx, call); err != nil {
		return fmt.Errorf("report %s: %w", t.path, err)
	}
	if err := t.noteRead(ctx, readEntry{"AUDIT_REPORT", "report"}, map[string]any{"report": kind}); err != nil {
		return fmt.Errorf("report %s: %w", t.path, err)
	}
	meta := report.Meta{Generated: t.clock.now(), RetentionDays: DefaultRetentionDays, Erasure: t.erasure(), AccessControl: t.controlled(), Unrecorded: t.opts.Unrecorded}
	if state, err := t.lifeNow(ctx); err == nil {
		meta.RetentionDays = int(owedDays(state.Terms))
		for _, g := range state.Gaps {
			meta.Pruned += g.Count
		}
	}
	if c, _, err := t.latest(); err == nil {
		meta.Checkpoint = &report.Checkpoint{
			Origin: c.Origin, Size: c.Size, Root: base64.StdEncoding.EncodeToString(c.Root[:]), AnchoredTo: t.anchoredTo(),
		}
	}
	b := begin(meta)
	for e, err := range t.scan(ctx, Query{Trails: true}) {
		switch {
		case err == nil:
			b.Add(e)
		case ctx.Err() != nil:
			return fmt.Errorf("report %s: %w", t.path, ctx.Err())
		case isBroken(err):
			b.AddBroken(e.Index)
		case goesOn(err):
			gap, _ := errors.AsType[*GapError](err)
			b.AddMissing(report.Gap{First: gap.First, Count: gap.Count, Detail: gap.Error()})
		default:
			return fmt.Errorf("report %s: %w", t.path, err)
		}
	}
	return nil
}

// WriteComplianceReport writes the documented report as text.
func (t *Trail) WriteComplianceReport(ctx context.Context, w io.Writer) error {
	r, err := t.ComplianceReport(ctx)
	if err != nil {
		return err
	}
	return r.WriteText(w)
}

// anchoredTo is the size of the last checkpoint that arrived outside, as far
// as this process knows; -1 for none.
func (t *Trail) anchoredTo() int64 {
	to := int64(-1)
	if t.holds() {
		for _, s := range t.signer.sinks {
			to = max(to, s.sent.Load())
		}
	}
	for _, a := range t.anchorInfos(0) {
		to = max(to, a.Size)
	}
	return to
}
