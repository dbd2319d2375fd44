package hook

import (
	"context"
	"maps"
	"sync/atomic"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// WithMetadata carries the caller's context (user_id, session_id, ip_address,
// user_agent, anything) into the metadata of everything that happens below ctx.
// A name that ctx has already gets the new value, for what is below. The values
// are read here, and may change afterwards.
func WithMetadata(ctx context.Context, m map[string]any) context.Context {
	if len(m) == 0 {
		return ctx
	}
	return context.WithValue(ctx, metadataKey{}, &metadata{values: merge(metadataOf(ctx).all(), m)})
}

// MetadataOf gives what WithMetadata has put into ctx.
func MetadataOf(ctx context.Context) map[string]any { return maps.Clone(metadataOf(ctx).all()) }

type metadataKey struct{}

// metadata is what a context carries. It does not change.
type metadata struct {
	values  map[string]any
	encoded atomic.Pointer[encodedMetadata]
}

// encodedMetadata is metadata as the entries of one hook have it, which adds its
// own.
type encodedMetadata struct {
	hook *AuditTrailHook
	text audit.Object
}

func metadataOf(ctx context.Context) *metadata {
	m, _ := ctx.Value(metadataKey{}).(*metadata)
	return m
}

func (m *metadata) all() map[string]any {
	if m == nil {
		return nil
	}
	return m.values
}

// merge gives what the maps have, a later one's word against an earlier one's.
// What is added is read now.
func merge(base map[string]any, added ...map[string]any) map[string]any {
	out := make(map[string]any, len(base)+4)
	maps.Copy(out, base)
	for _, m := range added {
		for k, v := range m {
			out[k] = frozen(v)
		}
	}
	return out
}

// frozen is a value that does not change any more: itself, or its JSON text. One
// that has none says why.
func frozen(v any) any {
	switch v := v.(type) {
	case nil, string, bool, int, int32, int64, uint64, float64:
		return v
	}
	const before, after = len(`{"v":`), len(`}`)
	o, _, err := checked(audit.Of(map[string]any{"v": v}))
	if err != nil {
		return audit.Of(map[string]any{"omitted": err.Error(), "bytes": 0})
	}
	text, _ := o.AppendJSON(nil)
	return audit.Raw(text[before : len(text)-after])
}
