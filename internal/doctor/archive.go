package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
)

const (
	// archiveWait bounds how long an archive is waited for.
	archiveWait = 10 * time.Second
	// archiveSkew is how far its clock may be off: retention dates are by it, and S3
	// refuses what is signed a quarter of an hour off.
	archiveSkew = time.Minute
)

// conditioned is an archive that can tell how it is.
type conditioned interface {
	Condition(ctx context.Context) (archive.Condition, error)
}

// archive looks whether the archive can be reached, how it locks, whether its clock is
// ours, and what is not there yet.
func (e *exam) archive(ctx context.Context) {
	store := e.opts.ArchiveTo
	if store == nil {
		return
	}
	if c, ok := store.(conditioned); ok {
		asking, cancel := context.WithTimeout(ctx, archiveWait)
		is, err := c.Condition(asking)
		cancel()
		if err != nil {
			e.failed("archive", fmt.Errorf("%s: %w", store.URL(), err))
			return
		}
		switch {
		case is.Ahead.Abs() > archiveSkew:
			e.say("archive", Warn, "set the clock: timedatectl; retention dates are kept by the archive's", "%s: its clock is %s off this machine's", store.URL(), is.Ahead.Round(time.Second))
		case is.Lock == "none":
			e.say("archive", Warn, "a bucket with object lock keeps what it has from whoever writes the trail (docs/archive.md)", "%s can be reached, and locks nothing", store.URL())
		default:
			e.say("archive", OK, "", "%s can be reached, and locks in mode %s", store.URL(), is.Lock)
		}
	}
	i, err := e.reader.Info(ctx) // with what the probe has left there
	if err != nil {
		e.failed("archive", err)
		return
	}
	const what = "kaizen-audit archive push brings it up to date; whoever holds the trail archives by itself with the same setting"
	switch s := i.Archive; {
	case s == nil || s.At.IsZero() && s.Error == "":
		e.say("archive", Warn, what, "nothing of this trail was archived yet")
	case s.Error != "":
		e.say("archive", Fail, what, "nothing could be archived since %s: %s", s.Failing.UTC().Format(time.RFC3339), s.Error)
	case s.Exposed > 0 && time.Since(s.At) > alarm+archiveWait:
		e.say("archive", Warn, what, "%d entries are on this disk only, since %s", s.Exposed, s.At.UTC().Format(time.RFC3339))
	default:
		e.say("archive", OK, "", "%d entries are there, %d on this disk only", s.Lines, s.Exposed)
	}
}
