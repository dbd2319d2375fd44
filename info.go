package audit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// Info says how a trail is.
type Info struct {
	Path   string `json:"path"`
	Dir    string `json:"dir"`
	Origin string `json:"origin"`
	VKey   string `json:"vkey"`
	// KeyReplaced is the first tree size that VKey, or a key before it, signs since the
	// key before that was lost (Restore): who knows a key from before is told by it of
	// what came before alone. 0: none was lost.
	KeyReplaced int64     `json:"key_replaced,omitempty"`
	Profile     string    `json:"profile"`
	Created     time.Time `json:"created"`
	// Entries is the number of complete lines; Covered of those under the
	// latest checkpoint, whose root is Root (base64).
	Entries int64  `json:"entries"`
	Covered int64  `json:"covered"`
	Root    string `json:"root"`
	// LagSeconds is how long the oldest uncovered entry has waited, as far as
	// this process knows; over 10 it is a warning too.
	LagSeconds float64 `json:"lag_seconds"`
	// Segments are the sealed and cut-off ones.
	Segments  []SegmentInfo `json:"segments"`
	OpenFirst int64         `json:"open_first"`
	OpenBytes int64         `json:"open_bytes"`
	// Holder is who writes the trail now; empty if nobody does, and "not
	// known: reason" where that can't be told.
	Holder string `json:"holder"`
	// Pin is "new", "known", or "none: reason".
	Pin string `json:"pin"`
	// KeyReadableBy says who can read the signing key, and so rewrite and
	// sign again.
	KeyReadableBy string `json:"key_readable_by"`
	// Signer is the signer that has the signing key; nil where that lies in keys/.
	Signer *SignerInfo `json:"signer,omitempty"`
	// AnchoredTo is the size of the last checkpoint that this process saw
	// arrive outside; -1 if it knows of none.
	AnchoredTo int64 `json:"anchored_to"`
	// Anchors are those of Options.Anchors, with what each has vouched for.
	Anchors []AnchorInfo `json:"anchors,omitempty"`
	// RetentionDays is how long entries are to be kept, AccessControl whether
	// reading needs a role.
	RetentionDays int `json:"retention_days"`
	// Encryption is "Enabled" (whole lines), "Fields" (those with a person's data)
	// or "Disabled".
	Encryption string `json:"encryption"`
	// ScheduledErasures is how many erasures wait for the end of what stands against
	// them.
	ScheduledErasures int `json:"scheduled_erasures"`
	// SealedFor is the id of the pair of keys whose public one the trail's keys are
	// wrapped for: who writes with that reads nothing. Empty where the KEK is none.
	SealedFor string `json:"sealed_for,omitempty"`
	// Erasure says what erasing a person's data would reach here.
	Erasure       string `json:"erasure"`
	AccessControl string `json:"access_control"`
	Spooled       int    `json:"spooled"`
	// Group may read the log beside its owner; empty if none may.
	Group string `json:"group"`
	// AppendOnly says which files have the system's append-only flag: "off",
	// "sealed" (all sealed segments), "all" (the open one too) or "partly".
	AppendOnly string `json:"append_only"`
	// Retention is what RetentionDays rests on; Pruned is how many entries it has
	// taken away.
	Retention Retention `json:"retention"`
	Pruned    int64     `json:"pruned"`
	// Holds is how many legal holds are in force.
	Holds int `json:"holds"`
	// Missing are entries that can't be read, as far as that can be told
	// without reading what is sealed: Verify does.
	Missing []*GapError `json:"missing,omitempty"`
	// Archive is what is known of the trail's archive; nil if it never was archived.
	Archive *ArchiveState `json:"archive,omitempty"`
	// Adopted are the lines of an older log that the trail began with; nil if
	// with none.
	Adopted *Adopted `json:"adopted,omitempty"`
	// Warnings are what needs somebody's attention.
	Warnings []string `json:"warnings"`
}

// lagAlarm is the lag from which on it is a warning.
const lagAlarm = 10 * time.Second

// Info looks at the trail. It is no reading of entries and is not recorded.
func (t *Trail) Info(ctx context.Context) (*Info, error) {
	i := &Info{
		Path: t.path, Dir: t.dir, Origin: t.id.Origin, VKey: t.ids().VKey, Profile: t.id.Profile,
		Pin: t.pin, AnchoredTo: t.anchoredTo(), RetentionDays: DefaultRetentionDays, Encryption: "Disabled", AccessControl: t.accessText(),
		Segments: []SegmentInfo{}, Warnings: t.warnings.list(),
	}
	switch {
	case t.Encrypts():
		i.Encryption = "Enabled"
	case t.seals():
		i.Encryption = "Fields"
	}
	for _, k := range t.ids().VKeys {
		if k.Replacement != "" {
			i.KeyReplaced = k.From
		}
	}
	i.Erasure = t.erasure()
	if files, err := keys.List(t.opts.fs, filepath.Join(t.dir, "keys")); err == nil {
		if f := files[len(files)-1]; kms.IsPair(f.By) {
			i.SealedFor = f.KEK
		}
	}
	i.Created, _, _ = entry.ParseTime(t.id.Created)
	view, err := t.view()
	if err != nil {
		return nil, fmt.Errorf("info %s: %w", t.path, err)
	}
	defer view.Close()
	parts := view.Parts()
	open := parts[len(parts)-1]
	for _, p := range parts[:len(parts)-1] {
		if p.File != "" {
			i.Segments = append(i.Segments, segmentInfo(p.Segment))
		}
	}
	if i.Missing, err = view.Gaps(ctx); err != nil {
		return nil, fmt.Errorf("info %s: %w", t.path, err)
	}
	for _, gap := range i.Missing {
		i.Warnings = append(i.Warnings, gap.Error())
	}
	if state, err := t.lifeNow(ctx); err == nil {
		i.Retention = retentionOf(state.Terms)
		i.ScheduledErasures, i.Holds = len(state.Scheduled), len(state.Holds)
		ready := 0
		for _, s := range state.Scheduled {
			if s.Ready(t.clock.now(), state.Holds) {
				ready++
			}
		}
		if ready > 0 {
			i.Warnings = append(i.Warnings, fmt.Sprintf("of %d erasures that wait %d are due: kaizen-audit erase-user --due", len(state.Scheduled), ready))
		}
		i.RetentionDays = i.Retention.Days
		for _, g := range state.Gaps {
			i.Pruned += g.Count
		}
	} else {
		i.Warnings = append(i.Warnings, "how long entries are kept is not known: "+err.Error())
	}
	i.OpenFirst = open.First
	next, err := view.Count(ctx)
	if err != nil {
		return nil, fmt.Errorf("info %s: %w", t.path, err)
	}
	i.Entries = next - i.Pruned
	for _, gap := range i.Missing {
		if gap.First < next {
			i.Entries -= max(gap.Count, 0)
		}
	}
	if fi, err := t.opts.fs.Stat(t.path); err == nil {
		i.OpenBytes = fi.Size()
	}
	// Where the first lines can't be read, Missing says so.
	if a, err := t.adopted(ctx); err == nil && a.Count > 0 {
		i.Adopted = &a
	}
	c, _, err := t.latest()
	if err == nil {
		i.Covered, i.Root = c.Size, base64.StdEncoding.EncodeToString(c.Root[:])
	}
	i.Anchors = t.anchorInfos(i.Covered)
	t.howArchived(ctx, i)
	t.keyExposure(i)
	if err := t.howProtected(i); err != nil {
		return nil, fmt.Errorf("info %s: %w", t.path, err)
	}
	for _, dir := range spoolDirs(t.dir, t.path, t.stateDir()) {
		if files, err := t.opts.fs.ReadDir(dir); err == nil {
			i.Spooled += len(files)
		}
	}
	if t.holds() {
		lag := t.signer.lag()
		i.LagSeconds = lag.Seconds()
		if lag > lagAlarm {
			why := ""
			if err := t.signer.failed.Load(); err != nil {
				why = ": " + (*err).Error()
			}
			i.Warnings = append(i.Warnings, fmt.Sprintf("the checkpoint lags %s behind%s", lag.Round(time.Second), why))
		}
		if err := t.journal.Err(); err != nil {
			i.Warnings = append(i.Warnings, err.Error())
		}
		i.Holder = t.writer().String()
	} else {
		i.Holder = t.holder()
		// A writer signs within a second. Without one nothing will.
		if n := next - i.Covered; i.Holder == "" && err == nil && n > 0 {
			which := fmt.Sprintf("the newest %d lines, from index %d on, are", n, i.Covered)
			if n == 1 {
				which = fmt.Sprintf("the newest line, index %d, is", i.Covered)
			}
			i.Warnings = append(i.Warnings, which+" under no checkpoint, and nobody writes the trail: the next opening to write adopts or sets aside what is there, and records which")
		}
	}
	return i, nil
}

// holder says who holds the lock.
func (t *Trail) holder() string {
	f, err := t.opts.fs.OpenFile(filepath.Join(t.dir, "lock"), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		return "not known: " + err.Error()
	}
	defer f.Close()
	if err := t.opts.fs.Lock(f); errors.Is(err, durable.ErrLocked) {
		who, _ := holder(f)
		return who
	}
	return ""
}

// keyExposure says who can read the signing key.
func (t *Trail) keyExposure(i *Info) {
	if i.Signer = t.signerInfo(); i.Signer != nil {
		who := "its user"
		if i.Signer.UID >= 0 {
			who = fmt.Sprintf("user %d", i.Signer.UID)
		}
		i.KeyReadableBy = fmt.Sprintf("%s and root, with the signer at %s", who, i.Signer.URL)
		switch {
		case i.Signer.Problem != "":
			i.Warnings = append(i.Warnings, i.Signer.Problem)
		case i.Signer.Size < i.Covered:
			i.Warnings = append(i.Warnings, fmt.Sprintf("the signer has signed %d entries and the checkpoint has %d: an old copy of its directory was put back", i.Signer.Size, i.Covered))
		}
		return
	}
	fi, err := t.opts.fs.Stat(filepath.Join(t.dir, "keys", "signing.key"))
	if err != nil {
		i.KeyReadableBy = "not beside the trail"
		return
	}
	switch mode := fi.Mode().Perm(); {
	case mode&0o004 != 0:
		i.KeyReadableBy = "everybody on this machine"
	case mode&0o040 != 0:
		i.KeyReadableBy = "its owner and its group"
	default:
		i.KeyReadableBy = "its owner and root"
	}
	if fi.Mode().Perm()&0o077 != 0 {
		i.Warnings = append(i.Warnings, "keys/signing.key can be read by others: chmod 600 it, and see the threat model")
	}
}

// pinnedOrigin gives the origin that was seen before at path, "" if none was.
func pinnedOrigin(dir, path string) string {
	p, ok, err := pin.Path(dir, path)
	if err != nil || !ok {
		return ""
	}
	return p.Origin
}

// checkNotPinned refuses to make a trail where another one was.
func (t *Trail) checkNotPinned() error {
	dir := t.stateDir()
	if dir == "" {
		return nil
	}
	if was := pinnedOrigin(dir, t.path); was != "" && was != t.opts.Origin {
		return advice.For(fmt.Errorf("%w: it was %s and is gone", ErrPinned, was),
			"if a new one is right: kaizen-audit init --forget-pin --log %s", advice.Quote(t.path))
	}
	return nil
}

// warnings keeps the newest few.
type warnings struct {
	mu  sync.Mutex
	all []string
}

const maxWarnings = 20

func (w *warnings) add(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Contains(w.all, s) {
		return
	}
	if len(w.all) == maxWarnings {
		w.all = slices.Delete(w.all, 0, 1)
	}
	w.all = append(w.all, s)
}

func (w *warnings) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.all...)
}
