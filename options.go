package audit

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// Durability says when Record returns.
type Durability int

const (
	// Durable returns once the line is on disk: after fdatasync.
	Durable Durability = iota
	// Written returns once the line was handed to the operating system. It
	// survives the end of the process, not a power failure. Of a busy writer it is
	// the ring that has the line then (docs/format.md §8); the log has it about a
	// millisecond later, or when somebody reads through us.
	Written
	// Queued returns once the line is in a bounded queue in memory, and waits
	// when that is full. Nothing is dropped, but the end of the process loses
	// what was not written.
	Queued
)

func (d Durability) String() string {
	switch d {
	case Durable:
		return "durable"
	case Written:
		return "written"
	case Queued:
		return "queued"
	}
	return fmt.Sprintf("Durability(%d)", int(d))
}

// Defaults of Options.
const (
	// DefaultPath is the documented path of the log.
	DefaultPath = "/var/log/kaizen-audit.jsonl"
	// DefaultSegmentBytes is the size at which a segment is sealed.
	DefaultSegmentBytes = 256 << 20
	// DefaultRetentionDays is seven years.
	DefaultRetentionDays = 2555
)

// Options are the settings of Open. The zero value is a good default.
type Options struct {
	// ReadOnly opens for reading: no lock is taken, another process may
	// write. What is read is still recorded (see Trail.Query).
	ReadOnly bool
	// Unrecorded, with ReadOnly, reads a copy of a trail, on a medium that can't be
	// written say, without recording it; what is made of it says so. A trail that a
	// process holds is not read so.
	Unrecorded bool
	// MustExist makes opening a trail that is not there an error; otherwise
	// one of profile plain is made.
	MustExist bool
	// Durability of Record; Durable by default.
	Durability Durability
	// SegmentBytes is the size in bytes at which the open segment is sealed;
	// 0 means 256 MiB, the least is 64 KiB.
	SegmentBytes int64
	// MaxLine is the longest entry in bytes; 0 means 16 MiB, the most is
	// 1 GiB.
	MaxLine int
	// Origin names a trail that is being made; empty means
	// kaizen-audit.invalid/ and 16 random hex digits. On a trail that exists
	// it must be that trail's.
	Origin string
	// CheckpointTo lists where every new checkpoint is sent, at most one a
	// second: a file's path (appended), "exec:COMMAND" (on standard input) or
	// "syslog:".
	CheckpointTo []string
	// Anchors are parties outside that vouch for checkpoints, in the background. At
	// an opening to write the latest that they have vouched for is compared first:
	// ErrForked where the trail does not extend it.
	Anchors []Anchor
	// Group is a group, by name or number, that may read the trail's lines,
	// for a log shipper: lines have mode 0640, the directories that lead to
	// them 0750; everything else, the keys first, stays its owner's. It is
	// recorded at each opening and holds for what that opening makes; empty
	// means nobody.
	Group string
	// AppendOnly sets the system's append-only flag (chattr +a; Linux, root or
	// CAP_LINUX_IMMUTABLE), which keeps root too from changing or removing a
	// file until it is lifted: "sealed" on sealed and set-aside files, "all"
	// on the open segment too. Empty means off: with the flag on, its owner
	// can't delete a trail either without chattr -a.
	AppendOnly string
	// AnyFileSystem makes a trail also on a file system whose locks do not keep
	// another writer out, or whose renames are not whole (nfs, cifs, 9p, vfat and
	// such): two machines that write it at once fork it. Entry 0 says so.
	AnyFileSystem bool
	// MustHold makes it ErrLocked to open a trail that another process holds,
	// which otherwise is recorded through.
	MustHold bool
	// NoSocket keeps other processes from recording through this one, and implies
	// MustHold.
	NoSocket bool
	// SocketGroup is a group, by name or number, whose members may record
	// through this process, and where access is controlled do what their roles allow,
	// and nothing else: they pass the trail's directory
	// (mode 0710) to its socket. It must be Group where that is set; empty means
	// nobody but the same user and root.
	SocketGroup string
	// Encrypt makes a trail that seals: whole lines, and in them every field that
	// holds a person's data (docs/format-sealing.md). It counts when the trail is
	// made, and is remembered; on a trail that seals nothing it is an error.
	Encrypt bool
	// KEK is the key that wraps the keys of a trail that seals; it is never kept
	// beside the trail. nil means that of AUDIT_LOG_ENCRYPTION_KEY, else that of
	// KeyFile.
	KEK kms.KEK
	// OpenKEK gives the KEK where it is needed, of a key service say; it counts where
	// KEK is nil, and then the environment and KeyFile do not.
	OpenKEK func(context.Context) (kms.KEK, error)
	// KeyFile is the file with the KEK (0600; 32 bytes as base64, base64url or hex).
	// Where a trail is made and the file is not there, it is made. Set, the
	// environment does not count; empty means kek/ORIGIN.key below StateDir.
	KeyFile string
	// NextKEK is the key to which Trail.RotateKEK rotates. Both are used until that
	// has returned: after a crash in the middle of it the trail is opened with both
	// again.
	NextKEK kms.KEK
	// LifecycleKeyFile is the file (0600) with the key that signs what somebody
	// permits: retention, holds, prunes, erasures, another signing key. Given when a
	// trail is made, it is a key apart from the signing key, and is made where it is
	// not there; then those calls need it. Empty means that the signing key is that
	// too.
	LifecycleKeyFile string
	// Signer is the signer that has the trail's signing key, by its socket,
	// "unix:/PATH" (docs/keys.md). Given when a trail is made, its key is with that
	// signer, never in this process, and its origin is the signer's; it is remembered.
	// Later it says where the signer is now. While the signer is away entries are
	// recorded and acknowledged, and no checkpoint covers them: Info says how long, and
	// Warn is told from 10 s on. Empty means a key in keys/, or the remembered signer.
	Signer string
	// RetentionDays is how many days after its newest entry a sealed segment is kept
	// at least; when they are over, a holder prunes it (docs/retention.md). 0 leaves
	// what is in force: of a new trail that of its profile, of plain and gdpr none, and
	// nothing is pruned then. A smaller number than before holds for what is recorded
	// from now on, and an entry says so (AUDIT_POLICY).
	RetentionDays int
	// RetentionLock has the period only grow from now on.
	RetentionLock bool
	// RotationInterval is how often a segment is sealed, by the trail's clock in UTC,
	// where SegmentBytes has not done so before: RotateDaily, which is what empty means,
	// RotateWeekly (on Mondays), RotateMonthly or RotateNever.
	RotationInterval string
	// Access says who may read the trail, and do what else; nil is what was last set
	// for it, which is nothing at first: then whoever can open it may. One that is
	// given is the trail's from then on, and an entry says so (AUDIT_POLICY).
	Access *Access
	// Policy says what may be written. nil is the policy that was last set for the
	// trail, policy.Default() where none was; a policy that is given is the
	// trail's from then on, and an entry says so (AUDIT_POLICY). What waits in a
	// file before it is recorded has passed it too.
	Policy *policy.Policy
	// StateDir is where origins and keys that were seen are pinned; empty
	// means $KAIZEN_AUDIT_STATE, else $XDG_STATE_HOME/kaizen-audit/known,
	// else ~/.local/state/kaizen-audit/known.
	StateDir string
	// Command names who opens the trail, for the entries about reading:
	// "kaizen-audit query". Empty means the program's name.
	Command string

	// ArchiveTo is where the trail's holder archives it: each sealed segment once it
	// is sealed, and what is not sealed yet every ArchiveEvery (10 s where 0): that is
	// how much would be lost with the disk. nil is nowhere. What can't be archived
	// fails no Record: it is told (Warn, Info), and made up for later.
	ArchiveTo    archive.Store
	ArchiveEvery time.Duration
	// ArchiveRate bounds what is archived, in bytes a second; 0 is no limit.
	ArchiveRate int64
	// ArchiveKeepLocal is how long a sealed segment stays on this disk; 0 is for good.
	// After that its file is removed, once the archive was read and has just that,
	// kept until its date, and readings fetch it from there. In profile pci it is 90
	// days at least (PCI DSS 10.5.1: three months immediately available).
	ArchiveKeepLocal time.Duration
	// ArchiveCache bounds, in bytes, what is kept of segments that were fetched; 0 is
	// DefaultArchiveCache.
	ArchiveCache int64
	// OpenArchive gives the archive at a URL, to read what is only there, where that is
	// not ArchiveTo's. nil: directories alone.
	OpenArchive func(url string) (archive.Store, error)

	// Warn is told what went wrong without failing a call: a reading that
	// could not be recorded, a checkpoint that a sink did not take. It may be
	// called from any goroutine; nil means that only Info shows it.
	Warn func(error)
	// Progress is told during Query, Trace, ComplianceReport, EraseUser (once for
	// each look through the lines) and an adopting Init how many bytes of lines were read, of about how many.
	Progress func(done, total int64)

	// Seams for tests.
	fs        durable.FS
	now       func() time.Time
	fsKind    func(name string) (durable.FileSystem, error)
	interval  time.Duration // between checkpoints
	quiet     bool          // no start and stop entries
	patience  time.Duration // for a holder that says it has a socket; 0 is holderWait
	successor *successorOf
	missing   *archiver.Range // by the archive of the trail before
	profile   string          // of a trail that is being made; empty is plain
	adopt     bool            // the file at the path becomes the trail's beginning
	manual    bool            // nothing is signed but by hand
	ring      int64           // bytes; 0 is the default, negative is none
	ringAfter int64           // commits
	catchUp   time.Duration   // see journal.Options; 0 is the default unless manual
	backlog   int             // acknowledged lines that may wait for the tree; 0 is maxPending
}

const (
	// ringBytes is the size of the ring: at 80 MB/s, which is what 64 writers
	// append, half of it is filled in 100 ms, in which the segment is synced.
	ringBytes = 16 << 20
	// ringSegment is the least segment that is worth a ring: it is made anew
	// after every seal.
	ringSegment = 64 << 20
	// catchUpAfter is how long an acknowledged line of mode Written may be in the ring
	// and not in the log: at 100 MB/s they are 100 kB then, in one write.
	catchUpAfter = time.Millisecond
)

// optionError says which option is wrong.
func optionError(name, format string, args ...any) error {
	return wrongOption{fmt.Errorf("option %s: %w", name, fmt.Errorf(format, args...))}
}

// wrongOption is ErrOption.
type wrongOption struct{ error }

func (e wrongOption) Unwrap() error        { return e.error }
func (e wrongOption) Is(target error) bool { return target == ErrOption }

// withDefaults checks the options and fills in the defaults.
func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Durability < Durable || out.Durability > Queued {
		return out, optionError("Durability", "%d is none of Durable, Written, Queued", int(out.Durability))
	}
	if out.Unrecorded && !out.ReadOnly {
		return out, optionError("Unrecorded", "it is about reading, and ReadOnly is not set")
	}
	switch {
	case out.SegmentBytes == 0:
		out.SegmentBytes = DefaultSegmentBytes
	case out.SegmentBytes < 64<<10:
		return out, optionError("SegmentBytes", "%d is less than 65536", out.SegmentBytes)
	}
	switch {
	case out.MaxLine == 0:
		out.MaxLine = entry.DefaultMaxLine
	case out.MaxLine < 1024 || out.MaxLine > 1<<30:
		return out, optionError("MaxLine", "%d is outside 1024 to 1073741824", out.MaxLine)
	}
	if strings.ContainsFunc(out.Origin, func(r rune) bool { return r == '+' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) || !utf8.ValidString(out.Origin) {
		return out, optionError("Origin", "it must be a name without spaces and plus signs, such as example.com/agents")
	}
	if out.Signer != "" {
		if _, err := signing.ParseURL(out.Signer); err != nil {
			return out, optionError("Signer", "%w", err)
		}
	}
	if out.RetentionDays < 0 || out.RetentionDays > lifecycle.MaxDays {
		return out, optionError("RetentionDays", "%d is outside 1 to %d", out.RetentionDays, lifecycle.MaxDays)
	}
	switch out.RotationInterval {
	case "":
		out.RotationInterval = RotateDaily
	case RotateDaily, RotateWeekly, RotateMonthly, RotateNever:
	default:
		return out, optionError("RotationInterval", "%q is none of %s, %s, %s, %s", out.RotationInterval, RotateDaily, RotateWeekly, RotateMonthly, RotateNever)
	}
	if out.Group != "" {
		if _, err := durable.LookupGroup(out.Group); err != nil {
			return out, optionError("Group", "%w", err)
		}
	}
	if out.SocketGroup != "" {
		switch gid, err := durable.LookupGroup(out.SocketGroup); {
		case err != nil:
			return out, optionError("SocketGroup", "%w", err)
		case out.NoSocket:
			return out, optionError("SocketGroup", "NoSocket is set too")
		case out.Group != "":
			// A directory has one group, and both have to go through it.
			if other, err := durable.LookupGroup(out.Group); err == nil && other != gid {
				return out, optionError("SocketGroup", "it must be the group of Group, where that is set")
			}
		}
	}
	switch out.AppendOnly {
	case "", appendOnlySealed, appendOnlyAll:
	default:
		return out, optionError("AppendOnly", "%q is none of sealed, all", out.AppendOnly)
	}
	if out.Access != nil {
		if err := out.Access.Check(); err != nil {
			return out, optionError("Access", "%w", err)
		}
	}
	for _, to := range out.CheckpointTo {
		if _, err := witness.ParseSink(to); err != nil {
			return out, optionError("CheckpointTo", "%w", err)
		}
	}
	if _, err := makeAnchors(out.Anchors); err != nil {
		return out, err
	}
	if out.ArchiveTo == nil && (out.ArchiveEvery != 0 || out.ArchiveRate != 0 || out.ArchiveKeepLocal != 0) {
		return out, optionError("ArchiveTo", "ArchiveEvery, ArchiveRate and ArchiveKeepLocal need it")
	}
	if out.ArchiveKeepLocal < 0 {
		return out, optionError("ArchiveKeepLocal", "it is negative")
	}
	if out.ArchiveCache < 0 {
		return out, optionError("ArchiveCache", "it is negative")
	}
	if out.ArchiveEvery < 0 || out.ArchiveEvery != 0 && out.ArchiveEvery < 100*time.Millisecond {
		return out, optionError("ArchiveEvery", "%s is less than 100ms", out.ArchiveEvery)
	}
	if out.ArchiveRate < 0 {
		return out, optionError("ArchiveRate", "it is negative")
	}
	if out.fs == nil {
		out.fs = durable.OS
	}
	if out.fsKind == nil {
		out.fsKind = durable.FileSystemOf
	}
	if out.now == nil {
		out.now = time.Now
	}
	switch {
	case out.ring == 0 && out.SegmentBytes >= ringSegment:
		out.ring = ringBytes
	case out.ring < 0:
		out.ring = 0
	}
	if out.interval == 0 {
		out.interval = checkpointInterval
	}
	if out.backlog == 0 {
		out.backlog = maxPending
	}
	if out.catchUp == 0 && !out.manual {
		out.catchUp = catchUpAfter
	}
	return out, nil
}
