package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// VerifyOptions are the settings of Verify.
type VerifyOptions struct {
	// Key is the verifier key to trust; empty means the pinned one, else the
	// trail's own.
	Key string
	// Checkpoint is an older signed checkpoint from outside the trail, or several
	// behind each other, as Options.CheckpointTo appends them to a file: each must be a prefix of the trail, and those of other trails are
	// passed over. nil is none. What is no checkpoint (ErrNoCheckpoint), or only
	// another trail's (ErrOtherTrail), says nothing of the trail: there is no
	// report then.
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
// be opened. ErrNotFound: there is none at the path, and none was seen there
// before.
func VerifyPath(ctx context.Context, path string, opts *VerifyOptions) (*VerifyReport, error) {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	log, dir, err := paths(path)
	if err != nil {
		return nil, err
	}
	v := verify.Options{LogPath: log, Key: o.Key, Checkpoint: o.Checkpoint, RequireAnchor: o.RequireAnchor, Progress: o.Progress}
	pins := o.StateDir
	if pins == "" {
		pins = pin.DefaultDir()
	}
	if pins != "" && o.Key == "" {
		v.PinnedKey = pin.Key(pins, log)
	}
	// A trail that was seen here and is gone is damage; where none was, there
	// is nothing to verify.
	if pins == "" || pinnedOrigin(pins, log) == "" {
		if err := someTrail(log, dir); err != nil {
			return nil, fmt.Errorf("verify %s: %w", path, err)
		}
	}
	return verify.Verify(ctx, v)
}

// someTrail wants a file of lines or a trail's directory.
func someTrail(log, dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is wrong with it is for verify to say
	}
	fi, err := os.Stat(log)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(log)
	}
	if err != nil {
		return err
	}
	return durable.CheckRegular(log, fi)
}
