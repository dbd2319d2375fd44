package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// allowed is the most that a file of a trail may be open to others, by its
// name in the trail's directory ("" for that itself): what its owner may, and a
// group that reads lines (docs/format.md, files).
func allowed(rel string, dir bool) fs.FileMode {
	parent := filepath.Dir(rel)
	inLines := parent == "segments" || parent == "aside"
	switch {
	case dir && (rel == "." || rel == "segments" || rel == "aside"):
		return 0o750
	case dir:
		return 0o700
	case inLines && strings.Contains(filepath.Base(rel), ".jsonl"):
		return 0o640
	case rel == "sock":
		return 0o660
	}
	return 0o600
}

// shown is how many findings are named; the rest is counted.
const shown = 3

// permissions looks at every file of the trail.
func (e *exam) permissions() {
	owner, err := durable.OwnerOf(durable.OS, e.info.Dir)
	if err != nil {
		e.failed("permissions", err)
		return
	}
	var open, unseen []string
	files := 0
	look := func(name string, fi fs.FileInfo, most fs.FileMode) {
		files++
		if perm := fi.Mode().Perm(); perm&^most != 0 {
			open = append(open, fmt.Sprintf("%s is %04o, at most %04o", name, perm, most))
		} else if uid := durable.UserOf(fi); uid != owner {
			open = append(open, fmt.Sprintf("%s belongs to user %d, the trail to %d", name, uid, owner))
		}
	}
	if fi, err := os.Stat(e.info.Path); err == nil {
		look(filepath.Base(e.info.Path), fi, 0o640)
	}
	err = filepath.WalkDir(e.info.Dir, func(name string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(e.info.Dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			return relErr // it was a temporary one
		}
		var fi fs.FileInfo
		if err == nil {
			fi, err = d.Info()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, fs.ErrPermission):
			unseen = append(unseen, rel)
		case err != nil:
			return err
		case fi.Mode()&fs.ModeSymlink != 0: // its mode says nothing
		default:
			look(rel, fi, allowed(rel, d.IsDir()))
		}
		return relErr
	})
	if err != nil {
		e.failed("permissions", err)
		return
	}
	const what = "take from others what is too much: chmod; see who was given it"
	switch {
	case len(open) > 0:
		e.say("permissions", Fail, what, "%s", few(open))
	case len(unseen) > 0:
		e.say("permissions", Warn, fmt.Sprintf("sudo -u '#%d' kaizen-audit doctor --log %s", owner, advice.Quote(e.info.Path)), "this user can't look into %s", few(unseen))
	default:
		e.say("permissions", OK, "", "%d files and directories, closed to others", files)
	}
	if fi, err := os.Stat(filepath.Dir(e.info.Path)); err == nil && fi.Mode().Perm()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 {
		e.say("folder", Fail, "chmod o-w "+advice.Quote(filepath.Dir(e.info.Path)), "anybody can exchange the log: %s is %04o", filepath.Dir(e.info.Path), fi.Mode().Perm())
	}
}

func few(all []string) string {
	if len(all) <= shown {
		return strings.Join(all, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(all[:shown], "; "), len(all)-shown)
}

// anchors says what is known outside the writer's reach. closed is what came
// of closing a trail that sent its checkpoints.
func (e *exam) anchors(ctx context.Context, closed error) {
	const what = "--checkpoint-to sends every checkpoint out of the writer's reach, a witness vouches for them (docs/anchors.md); give doctor the settings of the trail's holder (--config)"
	if errors.Is(closed, audit.ErrNotSent) {
		e.failed("anchors", closed)
		return
	}
	if closed != nil {
		e.failed("close", closed)
	}
	if len(e.opts.Anchors) > 0 {
		e.vouched(ctx)
	}
	if len(e.opts.CheckpointTo) == 0 {
		if len(e.opts.Anchors) > 0 {
			return
		}
		e.say("anchors", Warn, what, "none is configured here: whoever has the signing key can sign another history, and nobody outside would know")
		return
	}
	verifier, err := note.NewVerifier(e.info.VKey)
	if err != nil {
		e.failed("anchors", err)
		return
	}
	for _, to := range e.opts.CheckpointTo {
		if strings.HasPrefix(to, "exec:") || strings.HasPrefix(to, "syslog:") {
			word, _, _ := strings.Cut(to, ":")
			switch {
			case e.held:
				e.say("anchors", OK, "", "%s: took the latest checkpoint", word)
			case e.direct:
				e.say("anchors", Warn, "", "%s: not tried, as the trail could not be opened", word)
			default:
				e.say("anchors", OK, "", "%s: its holder sends there, and warns of what does not arrive", word)
			}
			continue
		}
		name := strings.TrimPrefix(to, "file:")
		size, err := lastAnchored(name, verifier)
		switch {
		case err != nil:
			e.failed("anchors", fmt.Errorf("%s: %w", name, err))
		case size < e.info.Covered:
			e.say("anchors", Warn, "see why the holder does not send there", "%s: the last checkpoint has %d entries, the trail had %d", name, size, e.info.Covered)
		default:
			e.say("anchors", OK, "", "%s: %d entries", name, size)
		}
	}
}

// vouched says what the configured anchors have vouched for.
func (e *exam) vouched(ctx context.Context) {
	i, err := e.reader.Info(ctx)
	if err != nil {
		e.failed("anchors", err)
		return
	}
	for _, a := range i.Anchors {
		switch {
		case a.Problem != "":
			e.say("anchors", Fail, "kaizen-audit verify with the same --config tells more", "%s %s: %s", a.Kind, a.Name, a.Problem)
		case a.Size < 0:
			e.say("anchors", Warn, "see whether it can be reached, and knows this trail's key", "%s %s: has vouched for nothing yet", a.Kind, a.Name)
		default:
			e.say("anchors", OK, "", "%s %s: %d entries, %d behind, at %s", a.Kind, a.Name, a.Size, a.Lag, a.Time.UTC().Format(time.RFC3339))
		}
	}
}

// lastAnchored is the size of the last checkpoint in a file of them.
func lastAnchored(name string, verifier note.Verifier) (int64, error) {
	f, err := durable.OS.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	// Some hundred bytes each; one stands between two empty lines.
	tail := make([]byte, min(fi.Size(), 16<<10))
	if _, err := f.ReadAt(tail, fi.Size()-int64(len(tail))); err != nil {
		return 0, err
	}
	begin := bytes.LastIndex(tail, []byte(verifier.Name()+"\n"))
	if begin < 0 {
		return 0, errors.New("it ends with no checkpoint of this trail")
	}
	c, err := tree.ParseCheckpoint(bytes.TrimSuffix(tail[begin:], []byte("\n")), trust.By(verifier))
	return c.Size, err
}
