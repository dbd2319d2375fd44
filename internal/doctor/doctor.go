// Package doctor looks whether a trail does what it is there for, here and now:
// an event goes in through each way in and comes out again, proved; the place,
// the clock and the files are as they must be. What does not hold is said in
// words, with what to do.
//
// It writes: the probes are entries (event type DOCTOR_PROBE, agent
// kaizen-audit-doctor), and so are its readings. It repairs nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
	"github.com/kaizen-audit/kaizen-audit/internal/spool"
)

// What a probe is called.
const (
	ProbeType  = "DOCTOR_PROBE"
	ProbeAgent = "kaizen-audit-doctor"
)

// State is what came of a check.
type State string

const (
	OK   State = "ok"
	Warn State = "warn" // it works, and could do harm
	Fail State = "fail" // it does not work, or does harm now
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"check"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do about it
}

// Report is all of them. Its JSON shape only grows.
type Report struct {
	Status State   `json:"status"` // the worst of the checks
	Path   string  `json:"path"`
	Dir    string  `json:"dir"`
	Checks []Check `json:"checks"`
}

const (
	// promised and alarm are how long an entry may wait for its checkpoint:
	// what is promised, and from where on a trail warns of itself.
	promised, alarm = time.Second, 10 * time.Second
	// spoolWait is how long a probe may wait in the spool: its holder looks
	// once a second.
	spoolWait = 5 * time.Second
	// clockStep is what a clock may be off by: what the trail itself clamps.
	clockStep = 2 * time.Second
	pollPause = 20 * time.Millisecond
)

// youngest is before any trail was made: a clock before it was never set.
var youngest = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// exam is one examination.
type exam struct {
	opts   audit.Options
	report *Report
	reader *audit.Trail
	info   *audit.Info
	began  time.Time
	last   time.Time // recorded_at of the newest entry before the probes
	trace  string
	direct bool // nobody holds the trail, so that this process does while the probe runs
	held   bool // it did, and has closed it
}

// Examine looks at the trail at path. opts are those with which its writers
// open it, as far as they are known here. The error is for ctx alone: whatever
// else goes wrong is a finding.
func Examine(ctx context.Context, path string, opts audit.Options) (*Report, error) {
	e := &exam{opts: opts, report: &Report{Status: OK, Path: path, Checks: []Check{}}, began: time.Now(), trace: "doctor-" + spool.NewID(time.Now())}
	var err error
	e.reader, err = audit.Open(path, &audit.Options{ReadOnly: true, MustExist: true, StateDir: opts.StateDir, Command: opts.Command, Anchors: opts.Anchors, Warn: func(error) {}})
	if err == nil {
		defer e.reader.Close()
		e.report.Path, e.report.Dir = e.reader.Path(), e.reader.Dir()
		e.info, err = e.reader.Info(ctx)
	}
	if err != nil {
		e.failed("trail", err)
		if dir := filepath.Dir(path); ctx.Err() == nil {
			e.place(dir)
		}
		return e.report, ctx.Err()
	}
	e.trail()
	e.place(e.info.Dir)
	e.permissions()
	e.key()
	e.lock()
	e.newest(ctx)
	e.content(ctx)
	e.probe(ctx)
	e.archive(ctx)
	e.clock()
	e.pinned()
	return e.report, ctx.Err()
}

func (e *exam) say(name string, s State, what, format string, args ...any) {
	e.report.Checks = append(e.report.Checks, Check{name, s, fmt.Sprintf(format, args...), what})
	if s == Fail || s == Warn && e.report.Status == OK {
		e.report.Status = s
	}
}

// failed is what an error says.
func (e *exam) failed(name string, err error) {
	text, what := advice.Split(err)
	e.say(name, Fail, what, "%s", strings.ReplaceAll(text, "\n", "; "))
}

func (e *exam) trail() {
	i := e.info
	if len(i.Missing) > 0 {
		e.say("trail", Fail, "kaizen-audit verify --log "+advice.Quote(i.Path), "%s", i.Missing[0])
		return
	}
	entries := "entries"
	if i.Entries == 1 {
		entries = "entry"
	}
	e.say("trail", OK, "", "%d %s of %s", i.Entries, entries, i.Origin)
}

// Free space from which on it is a warning or worse: a seal needs the room of
// what it compresses, and the writer reserves ahead of what it acknowledges.
const (
	lowSpace  = 2 * audit.DefaultSegmentBytes
	noSpace   = 64 << 20
	lowInodes = 10_000
	noInodes  = 100
)

// place is where the trail's files lie.
func (e *exam) place(dir string) {
	s, err := durable.FileSystemOf(dir)
	if err != nil {
		e.say("file system", Warn, "", "not known: %v", err)
		return
	}
	switch s.Fitness() {
	case durable.Fit:
		e.say("file system", OK, "", "%s", s.Name)
	case durable.Unfit:
		e.say("file system", Fail, "move the trail to a disk of this machine", "%s: %s", s.Name, s.Because())
	default:
		e.say("file system", Warn, "keep the trail on a disk of this machine", "%s: %s", s.Name, s.Because())
	}
	e.space(s)
}

func (e *exam) space(s durable.FileSystem) {
	free := fmt.Sprintf("%.1f GiB of %.1f GiB are free", float64(s.Free)/(1<<30), float64(s.Size)/(1<<30))
	const what = "make room on the device"
	switch few := s.FreeFiles >= 0 && s.FreeFiles < lowInodes; {
	case s.Free < noSpace:
		e.say("disk", Fail, what, "%s", free)
	case few && s.FreeFiles < noInodes:
		e.say("disk", Fail, what, "%d more files can be made", s.FreeFiles)
	case s.Free < lowSpace:
		e.say("disk", Warn, what, "%s", free)
	case few:
		e.say("disk", Warn, what, "%d more files can be made", s.FreeFiles)
	default:
		e.say("disk", OK, "", "%s", free)
	}
}

// key says who can sign.
func (e *exam) key() {
	if s := e.info.Signer; s != nil {
		switch {
		case s.Problem != "":
			e.say("key", Fail, "start the signer, as its user: kaizen-audit signer; or name where it is: --signer", "%s", s.Problem)
		case s.UID == os.Geteuid() && s.UID != 0:
			e.say("key", Warn, "run kaizen-audit signer as another user (docs/keys.md)", "the signer at %s runs as this user, who so has the key too", s.URL)
		default:
			e.say("key", OK, "", "user %d and root can sign, by the signer at %s: %d entries are signed, and what continues them", s.UID, s.URL, s.Size)
		}
		return
	}
	name := filepath.Join(e.info.Dir, "keys", "signing.key")
	fi, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.say("key", OK, "", "not this user's to see")
		return
	case err != nil:
		e.say("key", Warn, "", "signing.key: %v", err)
		return
	}
	if open := fi.Mode().Perm() & 0o077; open != 0 {
		e.say("key", Fail, "chmod 600 "+advice.Quote(name)+"; whoever could read it can sign another history: begin a successor (kaizen-audit init --successor-of)",
			"%s can read the signing key", e.info.KeyReadableBy)
		return
	}
	owner, _ := durable.OwnerOf(durable.OS, name)
	e.say("key", OK, "", "user %d and root can sign; against them only anchors help", owner)
}

func (e *exam) lock() {
	switch holder := e.info.Holder; {
	case strings.HasPrefix(holder, "not known"):
		e.say("lock", Warn, "", "who holds the trail is %s", holder)
	case holder != "":
		e.say("lock", OK, "", "held by %s", holder)
	default:
		e.direct = true
		if fi, err := os.Stat(filepath.Join(e.info.Dir, "lock")); err == nil && fi.Size() > 0 {
			e.say("lock", OK, "", "free; the last writer ended without closing the trail, and the next opening recovers it")
			return
		}
		e.say("lock", OK, "", "free")
	}
}

// newest looks at the newest entry before the probes.
func (e *exam) newest(ctx context.Context) {
	for n, err := range e.reader.Query(ctx, audit.Query{Trails: true, Order: audit.Newest, Limit: 1}) {
		if err == nil {
			e.last = n.RecordedAt
		}
	}
}

// recentEntries are those that content looks at: reading them takes some tenths of a second.
const recentEntries = 20_000

// content says how many of the latest calls came without what was said in them.
func (e *exam) content(ctx context.Context) {
	var c report.Content
	for n, err := range e.reader.Query(ctx, audit.Query{Order: audit.Newest, Limit: recentEntries}) {
		if err == nil {
			c.Add(&n)
		}
	}
	switch {
	case c.Calls == 0:
	case c.Without == 0:
		e.say("content", OK, "", "no call is without it, %s", c.Share())
	default:
		var senders []string
		for i, s := range c.Senders() {
			if i == 3 {
				senders = append(senders, "kaizen-audit report names the others")
				break
			}
			senders = append(senders, s.String())
		}
		e.say("content", Warn, "turn content on where the calls are made: "+strings.Join(senders, "; "), "calls without what was said in them: %s, among the latest %d entries", c.Share(), recentEntries)
	}
}

func (e *exam) clock() {
	now := time.Now()
	jump := now.Round(0).Sub(e.began.Round(0)) - now.Sub(e.began)
	const what = "set the clock, and keep it by NTP; order in the trail is by index and holds"
	switch ahead := e.last.Sub(e.began); {
	case now.Before(youngest):
		e.say("clock", Fail, what, "it says %s", now.UTC().Format(time.RFC3339))
	case ahead > clockStep:
		e.say("clock", Fail, what, "the newest entry is %s ahead of it", ahead.Round(time.Millisecond))
	case jump.Abs() > clockStep:
		e.say("clock", Warn, what, "it was set by %s meanwhile", jump.Round(time.Millisecond))
	default:
		e.say("clock", OK, "", "%s, not before the newest entry", now.UTC().Format(time.RFC3339))
	}
}

func (e *exam) pinned() {
	if why, none := strings.CutPrefix(e.info.Pin, "none: "); none {
		e.say("pin", Warn, "name a directory that this user may write: KAIZEN_AUDIT_STATE", "an exchanged key would not be noticed here: %s", why)
		return
	}
	e.say("pin", OK, "", "%s", e.info.Pin)
}

// probe sends an event through each way in and looks for it.
func (e *exam) probe(ctx context.Context) {
	waiting, spooled := e.intoSpool()
	opts := e.opts
	opts.ReadOnly, opts.MustExist, opts.Warn = false, true, func(error) {}
	if !e.direct {
		opts.CheckpointTo, opts.Anchors = nil, nil // its holder's to set
	}
	trail, err := audit.Open(e.info.Path, &opts)
	if err != nil {
		e.failed("record", err)
		if spooled {
			e.say("spool", Warn, "", "an event waits there for the next holder")
		}
		e.anchors(ctx, nil)
		return
	}
	receipt, recorded := e.record(ctx, trail)
	if recorded {
		e.prove(ctx, trail, receipt)
	}
	if spooled {
		spooled = e.taken(ctx, waiting)
	}
	e.readBack(ctx, trail, receipt, recorded, spooled)
	err = trail.Close()
	e.held = e.direct
	e.anchors(ctx, err)
}

func (e *exam) event(way string) audit.Event {
	return audit.Event{EventType: ProbeType, AgentID: ProbeAgent, Action: "doctor_probe:" + way, TraceID: e.trace, Timestamp: time.Now()}
}

// record is the way of Open and Record: direct, or through the holder's socket.
func (e *exam) record(ctx context.Context, trail *audit.Trail) (audit.Receipt, bool) {
	ctx, cancel := context.WithTimeout(ctx, alarm)
	defer cancel()
	way := "socket"
	if e.direct {
		way = "direct"
	}
	start := time.Now()
	receipt, err := trail.Record(ctx, e.event(way))
	took := time.Since(start).Round(10 * time.Microsecond)
	if err != nil {
		e.failed("record", err)
		return receipt, false
	}
	how := "through its holder's socket"
	if e.direct {
		how = "as its holder"
	}
	if !receipt.Durable {
		e.say("record", Warn, "--durability durable waits for the disk", "%s: entry %d in %s, not on disk yet", how, receipt.Index, took)
		return receipt, true
	}
	e.say("record", OK, "", "%s: entry %d on disk in %s", how, receipt.Index, took)
	return receipt, true
}

// intoSpool is the way of automatic capture where the trail does not answer.
func (e *exam) intoSpool() (file string, ok bool) {
	owner, err := durable.OwnerOf(durable.OS, e.info.Dir)
	if err != nil || owner != os.Geteuid() {
		e.say("spool", Warn, fmt.Sprintf("sudo -u '#%d' kaizen-audit doctor --log %s", owner, advice.Quote(e.info.Path)),
			"not tried: the trail is user %d's, who could not read what user %d puts there", owner, os.Geteuid())
		return "", false
	}
	ev := e.event("spool")
	text, err := entry.AppendEvent(nil, &ev)
	now := time.Now()
	id := spool.NewID(now)
	dir := filepath.Join(e.info.Dir, "spool")
	if err == nil {
		err = spool.Put(durable.OS, dir, spool.Item{
			Format: spool.Format, ID: id, At: now.UTC().Format("2006-01-02T15:04:05.000Z"), Event: text, PID: os.Getpid(),
		})
	}
	if err != nil {
		e.failed("spool", err)
		return "", false
	}
	return filepath.Join(dir, id+".json"), true
}

// taken waits until the spool's item is gone.
func (e *exam) taken(ctx context.Context, file string) bool {
	gone := e.within(ctx, spoolWait, func() bool {
		_, err := os.Stat(file)
		return errors.Is(err, fs.ErrNotExist)
	})
	if !gone {
		e.say("spool", Fail, "let the trail's holder end, so that another takes the spool in; kaizen-audit info shows what waits", "what waits there is not taken in: not within %s", spoolWait)
	}
	return gone
}

// within tells whether something comes true in time.
func (e *exam) within(ctx context.Context, limit time.Duration, done func() bool) bool {
	over := time.After(limit)
	for {
		if done() {
			return true
		}
		select {
		case <-time.After(pollPause):
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// readBack wants both probes to come out as they went in.
func (e *exam) readBack(ctx context.Context, trail *audit.Trail, receipt audit.Receipt, recorded, spooled bool) {
	seen := map[string]audit.Entry{}
	var failure error
	for n, err := range trail.Query(ctx, audit.Query{Trace: e.trace, EventTypes: []string{ProbeType}, Since: e.began.Add(-clockStep), Order: audit.Newest, Limit: 2}) {
		if err != nil {
			failure = errors.Join(failure, err)
			continue
		}
		seen[n.Action] = n
	}
	if spooled {
		if n, there := seen["doctor_probe:spool"]; !there {
			e.say("spool", Fail, "kaizen-audit verify --log "+advice.Quote(e.info.Path), "the event that was taken in is not in the trail")
		} else {
			e.say("spool", OK, "", "taken in as entry %d", n.Index)
		}
	}
	if !recorded {
		return
	}
	delete(seen, "doctor_probe:spool")
	for _, n := range seen {
		if n.Index == receipt.Index && n.Digest() == receipt.Digest {
			e.say("read", OK, "", "entry %d is what its receipt says", n.Index)
			return
		}
	}
	if failure == nil {
		failure = errors.New("the entry of the receipt is not what can be read")
	}
	e.failed("read", failure)
}

// prove wants the probe under a checkpoint, in time.
func (e *exam) prove(ctx context.Context, trail *audit.Trail, receipt audit.Receipt) {
	start := time.Now()
	covered := int64(0)
	if !e.within(ctx, alarm, func() bool {
		i, err := e.reader.Info(ctx)
		if err == nil {
			covered = i.Covered
		}
		return covered > receipt.Index
	}) {
		e.say("checkpoint", Fail, "kaizen-audit info tells how the trail is; its holder warns of what fails", "it lags: entry %d is under none after %s, the latest covers %d", receipt.Index, alarm, covered)
		return
	}
	lag := time.Since(start).Round(10 * time.Millisecond)
	proof, err := trail.Prove(ctx, receipt.Index)
	if err == nil {
		_, err = audit.CheckProof(proof, receipt.Digest, e.info.VKey)
	}
	switch {
	case err != nil:
		e.failed("checkpoint", err)
	case lag > promised:
		e.say("checkpoint", Warn, "look after the disk", "entry %d is proved, after %s; promised is %s", receipt.Index, lag, promised)
	default:
		e.say("checkpoint", OK, "", "entry %d is proved, after %s", receipt.Index, lag)
	}
}
