package audit

import (
	"context"

	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// VerifyOptions are the settings of Verify.
type VerifyOptions struct {
	// Key is the verifier key to trust; empty means the pinned one, else the
	// trail's own.
	Key string
	// Checkpoint is an older signed checkpoint from outside the trail.
	Checkpoint []byte
	// RequireAnchor makes a trail that is consistent with itself only
	// damaged.
	RequireAnchor bool
	// StateDir is where pins are; empty means as in Options.
	StateDir string
	// Progress is told how many bytes of lines were checked, of how many.
	Progress func(done, total int64)
}

// Verify checks the trail from its files. Damage is in the report; the error
// is for a file that the operating system refuses, or for ctx. Nothing is
// written.
func (t *Trail) Verify(ctx context.Context, opts *VerifyOptions) (*VerifyReport, error) {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	if o.StateDir == "" {
		o.StateDir = t.opts.StateDir
	}
	return VerifyPath(ctx, t.path, &o)
}

// VerifyPath is Verify for a trail that is not open; it may be too damaged to
// be opened.
func VerifyPath(ctx context.Context, path string, opts *VerifyOptions) (*VerifyReport, error) {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	log, _, err := paths(path)
	if err != nil {
		return nil, err
	}
	v := verify.Options{LogPath: log, Key: o.Key, Checkpoint: o.Checkpoint, RequireAnchor: o.RequireAnchor, Progress: o.Progress}
	if o.Key == "" {
		dir := o.StateDir
		if dir == "" {
			dir = pin.DefaultDir()
		}
		if dir != "" {
			v.PinnedKey = pin.Key(dir, log)
		}
	}
	return verify.Verify(ctx, v)
}
