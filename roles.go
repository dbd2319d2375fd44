package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/access"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/export"
)

// Access says who may read a trail, and do what else (docs/access.md). It is
// remembered by the trail: whoever opens it later is bound by it too.
type Access = access.Config

// Role is what a role of one's own may do.
type Role = access.Role

// Principal is who asks, as the program that uses the library says.
type Principal struct {
	// ID is the user's name, as Access.Users may call it.
	ID string
	// Roles are what the program knows that it has.
	Roles []string
	// Agents are its own, for the role agent_developer.
	Agents []string

	names, groups []string // of the operating system's user
	itself        bool     // what the trail reads for itself
}

type principalKey struct{}

// WithPrincipal says who asks, for all that is done with the context. The innermost
// counts.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	p.Roles, p.Agents = slices.Clone(p.Roles), slices.Clone(p.Agents)
	return context.WithValue(ctx, principalKey{}, p)
}

// WithTrailItself is for packages that read a trail to record in it rightly: no role
// is needed, and the reading is recorded as always.
func WithTrailItself(ctx context.Context) context.Context {
	return WithPrincipal(ctx, Principal{ID: entry.TrailAgent, itself: true})
}

// OSPrincipal is the operating system's user who runs the program, with the groups.
func OSPrincipal() Principal { return osPrincipal(os.Getuid()) }

func osPrincipal(uid int) Principal {
	p := Principal{ID: "uid:" + strconv.Itoa(uid)}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return p
	}
	p.names = append(p.names, u.Username)
	ids, err := u.GroupIds()
	if err != nil {
		ids = []string{u.Gid}
	}
	for _, id := range ids {
		p.groups = append(p.groups, "gid:"+id)
		if g, err := user.LookupGroupId(id); err == nil {
			p.groups = append(p.groups, g.Name)
		}
	}
	return p
}

// operations say which permission each call needs; what is not here is denied where
// access is controlled.
var operations = map[string]access.Permission{
	"Query": access.Read, "Trace": access.Read, "Tail": access.Read, "ComplianceReport": access.Read, "WriteComplianceReport": access.Read,
	"GapReport": access.Read, "Prove": access.Read, "ProveConsistency": access.Read, "Holds": access.Read,
	"QueryByAgent": access.Read, "QueryByTrace": access.Read, "QueryByUser": access.Read, "QueryByTimeRange": access.Read,
	"AuditEntries": access.Read, "ExportComplianceReport": access.Read,

	"ExportUser": access.Export, "ExportUserData": access.Export, "Disclose": access.Export, "SealedFields": access.Export,
	"Reveal":    access.Reveal,
	"EraseUser": access.Erase, "ScheduledErasures": access.Erase, "CancelErasure": access.Erase, "EraseDue": access.Erase,
	"RotateKEK": access.Keys, "RotateDEK": access.Keys, "RotateSigningKey": access.Keys, "RetireSigningKey": access.Keys, "BackupKeys": access.Keys,
	"SetRetention": access.Manage, "Prune": access.Manage, "AddHold": access.Manage, "LiftHold": access.Manage, "Archive": access.Manage, "PruneArchive": access.Manage,
	"Rotate": access.Manage,

	// These say nothing of what entries hold, or record.
	"Record": access.None, "RecordBatch": access.None, "RecordEvent": access.None, "RecordFact": access.None, "RecordPHIAccess": access.None,
	"RecordCHDAccess": access.None, "Capture": access.None, "Import": access.None, "Ingest": access.None, "Omit": access.None, "NoteRefused": access.None,
	"Pseudonymize": access.None, "AppendPending": access.None, "ParsePending": access.None, "ImportedKeys": access.None, "Policy": access.None,
	"Serve": access.None, "Close": access.None, "Verify": access.None, "VerifySinceLast": access.None, "Info": access.None, "Retention": access.None,
	"Keys": access.None, "ArchiveState": access.None, "Path": access.None, "Dir": access.None, "Origin": access.None, "VKey": access.None,
	"StateDir": access.None, "Encrypts": access.None, "WritesAtOnce": access.None,
}

// inPart are the calls that give the entries that a grant shows, as it shows them. Any
// other is about all entries, and not for who sees some, or parts of them.
var inPart = map[string]bool{
	"Query": true, "Trace": true, "Tail": true, "AuditEntries": true,
	"QueryByAgent": true, "QueryByTrace": true, "QueryByUser": true, "QueryByTimeRange": true,
}

// grant is what a call may see; nil is everything.
type grant = *access.Grant

// authorize says whether whoever asks in ctx may make a call, and what of entries it
// sees. A refusal is recorded.
func (t *Trail) authorize(ctx context.Context, operation string) (grant, error) {
	c := t.access.Load()
	if c == nil || !c.Enabled {
		return nil, nil
	}
	want, known := operations[operation]
	if known && want == access.None {
		return nil, nil
	}
	p, ok := principalOf(ctx)
	if ok && p.itself {
		return nil, nil
	}
	why := errors.New("no principal asks")
	if ok && known {
		g, err := c.Decide(access.Principal{Names: append([]string{p.ID}, p.names...), Groups: p.groups, Roles: p.Roles, Agents: p.Agents}, want)
		switch {
		case err != nil:
			why = fmt.Errorf("%s has no role that may %s", p.ID, want)
		case g.Unlimited():
			return nil, nil
		case inPart[operation]:
			return &g, nil
		default:
			why = fmt.Errorf("the role of %s sees some entries, or parts of them, and this is made of all", p.ID)
		}
	}
	return nil, t.deny(ctx, operation, why)
}

// authorizeAll is authorize of a call that is about all entries.
func (t *Trail) authorizeAll(ctx context.Context, operation string) error {
	_, err := t.authorize(ctx, operation)
	return err
}

// deny records that a call is refused, and is the error that says why.
func (t *Trail) deny(ctx context.Context, operation string, why error) error {
	who, hint := "nobody", "say who asks: WithPrincipal (docs/access.md)"
	if p, ok := principalOf(ctx); ok {
		who = p.ID
		hint = fmt.Sprintf("the section access of the configuration gives roles to users and groups, such as users: {%q: [auditor]} (docs/access.md)", who)
	}
	err := fmt.Errorf("%w: %w", ErrDenied, why)
	if noted := t.noteDenied(ctx, who, operation); noted != nil {
		err = errors.Join(err, noted)
	}
	return advice.For(err, "%s", hint)
}

// principalOf is who asks: a peer of the socket, else whom the context names.
func principalOf(ctx context.Context) (Principal, bool) {
	if by, ok := peerOf(ctx); ok {
		return osPrincipal(by.UID), true
	}
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok && p.ID != ""
}

// seen is an entry as a grant shows it; ok is false where it shows nothing of it.
func (t *Trail) seen(g grant, e Entry) (out Entry, ok bool, err error) {
	if g == nil {
		return e, true, nil
	}
	shown, masked, fields := g.Sees(e.AgentID, e.EventType)
	if !shown || !masked {
		return e, shown, nil
	}
	line, err := export.Denied(e.View(), fields)
	if err != nil {
		return e, false, err
	}
	// Neither the stored line nor its digest goes with it: a digest beside what is
	// masked lets it be guessed.
	out, err = entry.Parse(line)
	out.Index = e.Index
	return out, err == nil, err
}

// yieldSeen gives on what a grant shows.
func (t *Trail) yieldSeen(g grant, yield func(Entry, error) bool) func(Entry, error) bool {
	if g == nil {
		return yield
	}
	return func(e Entry, err error) bool {
		ok := false
		if err == nil {
			e, ok, err = t.seen(g, e)
		}
		return err == nil && !ok || yield(e, err)
	}
}

// looksAtMasked refuses a query that asks about what its principal sees masked: each
// answer would tell a little of it.
func (t *Trail) looksAtMasked(ctx context.Context, operation string, g grant, q *Query) error {
	if g == nil || len(g.Masked) == 0 {
		return nil
	}
	for name, asks := range map[string]bool{"user": q.User != "", "subject": q.Subject != "", "session": q.Session != "", "resource": q.Resource != "",
		"purpose": q.Purpose != "", "metadata": len(q.Metadata) > 0, "text": q.Text != ""} {
		if asks {
			return t.deny(ctx, operation, fmt.Errorf("%s is asked about, which the role sees masked", name))
		}
	}
	return nil
}

// accessFile is X.trail/access: what was last set.
type accessFile struct {
	Format int    `json:"format"`
	Digest string `json:"digest"`
	Config Access `json:"config"`
}

func accessDigest(c Access) string {
	text, _ := json.Marshal(c) // it has strings only
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// storedAccess is what was last set for the trail, nil where nothing was.
func (t *Trail) storedAccess() (*Access, error) {
	data, err := durable.ReadFile(t.opts.fs, filepath.Join(t.dir, "access"), maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f accessFile
	if json.Unmarshal(data, &f) != nil || f.Format != formatVersion || accessDigest(f.Config) != f.Digest || f.Config.Check() != nil {
		return nil, fmt.Errorf("%w: %s: not what belongs there, and so nobody is let in", ErrDamaged, filepath.Join(t.dir, "access"))
	}
	return &f.Config, nil
}

// openAccess puts in force who may read; one that is new is recorded by a writer, and
// kept.
func (t *Trail) openAccess(ctx context.Context, write bool) error {
	was, err := t.storedAccess()
	given := t.opts.Access
	if given == nil || !write && (was != nil || err != nil) {
		// Who can't record that another counts from now on is bound by the one that was.
		t.access.Store(was)
		return err
	}
	t.access.Store(given)
	if !write || err == nil && was != nil && accessDigest(*was) == accessDigest(*given) || err == nil && was == nil && !given.Enabled {
		return nil
	}
	outputs := map[string]any{"digest": accessDigest(*given), "access": given}
	if was != nil {
		outputs["was"] = accessDigest(*was)
	}
	if err := t.recordOwn(ctx, ownEntry{eventType: "AUDIT_POLICY", action: "access_set", signed: true, outputs: outputs}); err != nil {
		return err
	}
	if err := t.journal.Flush(ctx); err != nil {
		return explainFull(explainJournal(err))
	}
	// A crash before this line: the next opening records it again.
	data, err := json.Marshal(accessFile{formatVersion, accessDigest(*given), *given})
	if err != nil {
		return err
	}
	return explainFull(durable.WriteFile(t.opts.fs, filepath.Join(t.dir, "access"), append(data, '\n'), 0o600))
}

// controlled tells whether reading needs a role.
func (t *Trail) controlled() bool {
	c := t.access.Load()
	return c != nil && c.Enabled
}

const accessOff = "Disabled"

// accessText is what reports and Info say.
func (t *Trail) accessText() string {
	if !t.controlled() {
		return accessOff
	}
	return "Enabled (API only): " + strings.Join(t.access.Load().Allowed(), ", ")
}
