package audit

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
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
	// Anchors are those of Options.Anchors. What is kept of them, beside the trail and
	// below StateDir, must be prefixes of it; and so must what the witnesses have seen,
	// which are asked. One that does not answer is told to Warn.
	Anchors []Anchor
	// Archive is the trail's archive: its newest checkpoints must be prefixes of the
	// trail too. One that does not answer is told to Warn.
	Archive archive.Store
	// OpenArchive and ArchiveCache are as in Options: what is in the archive only is
	// read there.
	OpenArchive  func(url string) (archive.Store, error)
	ArchiveCache int64
	// Warn is told what went wrong without failing the call; nil for nobody.
	Warn func(error)
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
	o.asOpened(&t.opts)
	t.catchUp()
	return VerifyPath(ctx, t.path, &o)
}

// catchUp has the log get what is acknowledged, for who reads it as a file. Where it
// can't, it has less beyond the checkpoint.
func (t *Trail) catchUp() {
	if t.holds() {
		_ = t.journal.CatchUp()
	}
}

// asOpened fills in what a trail was opened with.
func (o *VerifyOptions) asOpened(opts *Options) {
	if o.Anchors == nil {
		o.Anchors = opts.Anchors
	}
	if o.Archive == nil {
		o.Archive = opts.ArchiveTo
	}
	if o.OpenArchive == nil {
		o.OpenArchive = opts.archiveAt
	}
	if o.ArchiveCache == 0 {
		o.ArchiveCache = opts.ArchiveCache
	}
}

// VerifySinceLast is Verify of what came after the last verification that was
// recorded as intact: lines before it are not read again, in whole segments, as long
// as nothing is in doubt. It is recorded itself (AUDIT_VERIFY), with size, root and
// result, and that is where the next one begins. Where no earlier one can be read all
// is verified.
func (t *Trail) VerifySinceLast(ctx context.Context, opts *VerifyOptions) (*VerifyReport, error) {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	if o.StateDir == "" {
		o.StateDir = t.opts.StateDir
	}
	o.asOpened(&t.opts)
	t.catchUp()
	r, err := verifyPath(ctx, t.path, &o, t.lastVerified(ctx))
	if r == nil || ctx.Err() != nil {
		return r, err
	}
	// In hexadecimal digits: of 32 bytes in base64 one in thirty looks like a secret
	// access key, and detectors look into what is read.
	root, _ := base64.StdEncoding.DecodeString(r.Root) // the report's own
	noted := t.noteReading(ctx, readEntry{"AUDIT_VERIFY", "verify"}, map[string]any{"since": r.Since}, map[string]any{
		"size": r.Size, "root": hex.EncodeToString(root), "status": r.Status, "anchor": r.Anchor,
	})
	if noted != nil {
		noted = fmt.Errorf("verify %s: %w", t.path, noted)
	}
	return r, errors.Join(err, noted)
}

// lastVerified is what the newest recorded verification has found intact. Only the
// trail's own entries count, and the tree must have that root at that size.
func (t *Trail) lastVerified(ctx context.Context) verify.Since {
	for e, err := range t.scan(ctx, Query{EventTypes: []string{"AUDIT_VERIFY"}, Order: Newest}) {
		if err != nil {
			return verify.Since{} // what is in the way is for the verification to say
		}
		var o struct {
			Size   int64
			Root   string
			Status string
		}
		if !e.IsTrails() || e.Outputs.Decode(&o) != nil || o.Status != verify.Intact || o.Size <= 0 || o.Size > e.Index {
			continue
		}
		if root, err := hex.DecodeString(o.Root); err == nil && len(root) == 32 {
			return verify.Since{Size: o.Size, Root: [32]byte(root)}
		}
	}
	return verify.Since{}
}

// VerifyPath is Verify for a trail that is not open; it may be too damaged to
// be opened. ErrNotFound: there is none at the path, and none was seen there
// before.
func VerifyPath(ctx context.Context, path string, opts *VerifyOptions) (*VerifyReport, error) {
	return verifyPath(ctx, path, opts, verify.Since{})
}

func verifyPath(ctx context.Context, path string, opts *VerifyOptions, since verify.Since) (*VerifyReport, error) {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	log, dir, err := paths(path)
	if err != nil {
		return nil, err
	}
	v := verify.Options{LogPath: log, Key: o.Key, Checkpoint: o.Checkpoint, RequireAnchor: o.RequireAnchor, Progress: o.Progress, Since: since,
		Archive: newArchiveCache(dir, &Options{OpenArchive: o.OpenArchive, ArchiveCache: o.ArchiveCache}).segment}
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
	if err := o.outside(ctx, dir, pins, &v); err != nil {
		return nil, fmt.Errorf("verify %s: %w", path, err)
	}
	return verify.Verify(ctx, v)
}

// outside gathers what the anchors have vouched for.
func (o *VerifyOptions) outside(ctx context.Context, dir, stateDir string, v *verify.Options) error {
	anchors, err := makeAnchors(o.Anchors)
	if err != nil || len(anchors) == 0 && o.Archive == nil {
		return err
	}
	data, err := durable.ReadFile(durable.OS, filepath.Join(dir, "trail.json"), maxSmallFile)
	if err != nil {
		return nil // for verify to say
	}
	id, _, err := parseIdentity(data)
	if err != nil {
		return nil
	}
	if o.Archive != nil {
		ctx, cancel := context.WithTimeout(ctx, openWait)
		list, err := archiver.Checkpoints(ctx, o.Archive, id.Origin)
		cancel()
		if err != nil && o.Warn != nil {
			o.Warn(fmt.Errorf("archive %s: %w", o.Archive.URL(), err))
		}
		for _, a := range list {
			// What its writer can replace tells of a rollback, and vouches for nothing.
			kind := verify.AnchorArchive
			if !a.Locked {
				kind = ""
			}
			v.Outside = append(v.Outside, verify.Outside{Kind: kind, Name: o.Archive.URL(), Time: a.At, Checkpoint: a.Signed})
		}
	}
	said, broken, err := saidBy(ctx, anchors, anchorStores(dir, stateDir, id.Origin), id.Origin, o.Warn)
	v.Outside, v.Broken = append(v.Outside, said...), append(v.Broken, broken...)
	return err
}

// saidBy gathers what anchors have vouched for of a trail: what is kept of that, and
// what the witnesses show that are asked. broken is what is kept and does not check.
func saidBy(ctx context.Context, anchors []*witness.Anchor, stores []*witness.Store, origin string, warn func(error)) (said []verify.Outside, broken []string, err error) {
	add := func(a *witness.Anchor, st witness.Statement) {
		said = append(said, verify.Outside{Kind: a.Kind(), Name: a.Name(), Time: st.Time, Checkpoint: st.Checkpoint})
	}
	for _, a := range anchors {
		for _, s := range stores {
			st, _, ok, err := s.Latest(a)
			switch {
			case errors.Is(err, witness.ErrKept):
				broken = append(broken, err.Error())
			case err != nil:
				return said, broken, err
			case ok:
				add(a, st)
			}
		}
		ctx, cancel := context.WithTimeout(ctx, openWait)
		st, ok, err := a.Latest(ctx, origin)
		cancel()
		if ok {
			add(a, st)
		}
		if err != nil && warn != nil {
			warn(fmt.Errorf("anchor: %w", err))
		}
	}
	return said, broken, nil
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
