package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// The words of Options.AppendOnly.
const (
	appendOnlySealed = "sealed"
	appendOnlyAll    = "all"
)

// protected is the file system as a writer uses it that keeps its lines from
// others by more than the modes they are made with: a group may read them, or
// the system's append-only flag is on the open segment. Journal and tree know
// of neither.
type protected struct {
	durable.FS
	log, dir string
	gid      int // of the group that may read lines; -1: none

	mu      sync.Mutex // held while the flag of the open segment is lifted
	flagged bool       // the open segment has the flag, but for these moments
}

// isLines tells the files that hold lines: the open segment, its successor,
// and what lies in segments/ and aside/.
func (p *protected) isLines(name string) bool {
	if name == p.log || name == p.log+".next" {
		return true
	}
	parent := filepath.Dir(name)
	return filepath.Dir(parent) == p.dir && p.leadsToLines(parent) && strings.Contains(filepath.Base(name), ".jsonl")
}

// leadsToLines tells the directories on the way to lines.
func (p *protected) leadsToLines(name string) bool {
	return name == p.dir || name == filepath.Join(p.dir, "segments") || name == filepath.Join(p.dir, "aside")
}

// forGroup is a mode with what the group may do: read where the owner may.
func (p *protected) forGroup(name string, perm fs.FileMode) fs.FileMode {
	if p.gid < 0 {
		return perm
	}
	switch {
	case p.leadsToLines(name):
		return perm | perm&0o500>>3
	case p.isLines(name):
		return perm | perm&0o400>>3
	}
	return perm
}

// share gives what was made to the group.
func (p *protected) share(name string, perm fs.FileMode) error {
	shared := p.forGroup(name, perm)
	if shared == perm {
		return nil
	}
	// The group first: a mode for it must not hold for the one before.
	err := p.FS.Chgrp(name, p.gid)
	if err == nil {
		err = p.FS.Chmod(name, shared)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = advice.For(fmt.Errorf("group %s: %w", durable.GroupName(p.gid), err), "run as root, or as a member of the group")
	}
	return err
}

// lifted does something that the append-only flag of the open segment forbids.
func (p *protected) lifted(name string, again bool, do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.flagged || name != p.log {
		return do()
	}
	err := p.FS.SetAppendOnly(p.log, false)
	if errors.Is(err, fs.ErrNotExist) {
		return do()
	}
	if err != nil {
		return err
	}
	err = do()
	if again {
		err = errors.Join(err, p.FS.SetAppendOnly(p.log, true))
	}
	return err
}

// flag puts the flag on the open segment, where it belongs there.
func (p *protected) flag() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.flagged {
		return nil
	}
	return p.FS.SetAppendOnly(p.log, true)
}

func (p *protected) OpenFile(name string, flag int, perm fs.FileMode) (f durable.File, err error) {
	writes := flag&(os.O_WRONLY|os.O_RDWR) != 0
	free := writes && flag&os.O_APPEND == 0
	open := func() (err error) {
		f, err = p.FS.OpenFile(name, flag, perm)
		return err
	}
	if free {
		err = p.lifted(name, false, open)
	} else {
		err = open()
	}
	if err != nil {
		return nil, err
	}
	if flag&os.O_CREATE != 0 {
		if err := p.share(name, perm); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if writes && (name == p.log || name == p.log+".next") {
		return &protectedFile{File: f, fs: p, free: free && name == p.log}, nil
	}
	return f, nil
}

func (p *protected) Mkdir(name string, perm fs.FileMode) error {
	if err := p.FS.Mkdir(name, perm); err != nil {
		return err
	}
	return p.share(name, perm)
}

func (p *protected) Chmod(name string, perm fs.FileMode) error {
	return p.lifted(name, true, func() error { return p.FS.Chmod(name, p.forGroup(name, perm)) })
}

func (p *protected) Rename(oldname, newname string) error {
	return p.lifted(newname, false, func() error { return p.FS.Rename(oldname, newname) })
}

func (p *protected) Link(oldname, newname string) error {
	return p.lifted(oldname, false, func() error { return p.FS.Link(oldname, newname) })
}

func (p *protected) Remove(name string) error {
	return p.lifted(name, false, func() error { return p.FS.Remove(name) })
}

func (p *protected) Lock(f durable.File) error {
	if pf, ok := f.(*protectedFile); ok {
		f = pf.File
	}
	return p.FS.Lock(f)
}

// protectedFile is the open segment, or its successor.
type protectedFile struct {
	durable.File
	fs   *protected
	free bool // it was opened to write anywhere: the flag comes back with Close
}

func (f *protectedFile) Truncate(size int64) error {
	return f.fs.lifted(f.fs.log, !f.free, func() error { return f.File.Truncate(size) })
}

func (f *protectedFile) Close() error {
	err := f.File.Close()
	if f.free {
		err = errors.Join(err, f.fs.flag())
	}
	return err
}

// protect makes the options that keep others from the trail's files hold from
// here on. It comes before anything is made.
func (t *Trail) protect() error {
	p := &protected{FS: t.opts.fs, log: t.path, dir: t.dir, gid: -1}
	if t.opts.Group != "" {
		gid, err := durable.LookupGroup(t.opts.Group)
		if err != nil {
			return optionError("Group", "%w", err)
		}
		p.gid = gid
	}
	flagged, err := p.FS.AppendOnly(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	p.flagged = flagged || t.opts.AppendOnly == appendOnlyAll
	if p.gid >= 0 || p.flagged {
		t.opts.fs = p
	}
	t.protected = p
	return nil
}

// protectFiles does for the files that are there what protect does for those
// that are made: under the trail's lock, before the first line.
func (t *Trail) protectFiles() error {
	p := t.protected
	if p == nil {
		return nil
	}
	names, err := t.filesOfLines()
	if err != nil {
		return err
	}
	if p.gid >= 0 {
		for _, name := range append([]string{t.dir, filepath.Join(t.dir, "segments"), filepath.Join(t.dir, "aside"), t.path}, names...) {
			if err := t.shareThere(name); err != nil {
				return err
			}
		}
	} else if fi, err := p.FS.Stat(t.path); err == nil && fi.Mode().Perm()&0o040 != 0 {
		t.warn(fmt.Errorf("group %s can read %s, and no group is set: it can't read what is made from now on", durable.GroupName(durable.GroupOf(fi)), t.path))
	}
	if t.opts.AppendOnly != "" {
		for _, name := range names {
			// What is being compressed is removed afterwards.
			if strings.HasSuffix(name, ".zst") || filepath.Base(filepath.Dir(name)) == "aside" {
				if err := p.FS.SetAppendOnly(name, true); err != nil {
					return err
				}
			}
		}
	}
	return p.flag()
}

// filesOfLines lists the files in segments/ that count, and those in aside/.
func (t *Trail) filesOfLines() ([]string, error) {
	var names []string
	for _, s := range t.journal.Segments() {
		if s.Archived {
			continue // it is not here
		}
		names = append(names, filepath.Join(t.dir, "segments", s.File))
	}
	aside, err := t.protected.FS.ReadDir(filepath.Join(t.dir, "aside"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range aside {
		names = append(names, filepath.Join(t.dir, "aside", f.Name()))
	}
	return names, nil
}

// shareThere gives a file or directory that is there to the group, unless it
// has it already: a file with the append-only flag can't be given.
func (t *Trail) shareThere(name string) error {
	p := t.protected
	fi, err := p.FS.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	perm := fi.Mode().Perm() &^ 0o077
	if durable.GroupOf(fi) == p.gid && fi.Mode().Perm() == p.forGroup(name, perm) {
		return nil
	}
	flagged, err := p.FS.AppendOnly(name)
	if err != nil || !flagged {
		return errors.Join(err, p.share(name, perm))
	}
	if err := p.FS.SetAppendOnly(name, false); err != nil {
		return err
	}
	return errors.Join(p.share(name, perm), p.FS.SetAppendOnly(name, true))
}

// mayFlag finds out whether this process may set and lift the flag here: one
// that it could not lift would stop the next seal.
func (t *Trail) mayFlag() error {
	if t.protected == nil || !t.protected.flagged && t.opts.AppendOnly == "" {
		return nil
	}
	fsys := t.protected.FS
	name := filepath.Join(t.dir, "append-only.tmp")
	if on, _ := fsys.AppendOnly(name); on { // a crash left it
		_ = fsys.SetAppendOnly(name, false)
	}
	err := durable.CreateFile(fsys, name, nil, 0o600)
	if err == nil {
		err = errors.Join(fsys.SetAppendOnly(name, true), fsys.SetAppendOnly(name, false), fsys.Remove(name))
	}
	switch {
	case err == nil:
		return nil
	case t.opts.AppendOnly == "":
		return advice.For(fmt.Errorf("%s has the append-only flag, and a seal must lift it: %w", t.path, err),
			"run with CAP_LINUX_IMMUTABLE, or chattr -a %s", advice.Quote(t.path))
	}
	return advice.For(optionError("AppendOnly", "%w", err),
		"leave the option out, or run with CAP_LINUX_IMMUTABLE on a file system that has the flag")
}

// protectSealed puts the flag on a file that is sealed for good.
func (t *Trail) protectSealed(file string) {
	if t.opts.AppendOnly == "" || t.protected == nil {
		return
	}
	if err := t.protected.FS.SetAppendOnly(filepath.Join(t.dir, "segments", file), true); err != nil {
		t.warn(fmt.Errorf("sealed segment: %w", err))
	}
}

// protectOpen puts the flag on the open segment after a seal.
func (t *Trail) protectOpen() {
	if t.protected == nil {
		return
	}
	if err := t.protected.flag(); err != nil {
		t.warn(fmt.Errorf("open segment: %w", err))
	}
}

// protection is what AUDIT_CREATED and AUDIT_START say about it.
func (t *Trail) protection(facts map[string]any) {
	p := t.protected
	if p == nil {
		return
	}
	if p.gid >= 0 {
		facts["group"] = map[string]any{"gid": p.gid, "name": durable.GroupName(p.gid)}
	}
	if s := t.unfit(); s != nil && t.opts.AnyFileSystem {
		facts["file_system"] = s.Name
	}
	switch {
	case p.flagged:
		facts["append_only"] = appendOnlyAll
	case t.opts.AppendOnly != "":
		facts["append_only"] = t.opts.AppendOnly
	}
}

// howProtected says who may read the lines beside their owner, and what has
// the append-only flag, from the files alone.
func (t *Trail) howProtected(i *Info) error {
	fsys := t.opts.fs
	if fi, err := fsys.Stat(t.path); err == nil && fi.Mode().Perm()&0o040 != 0 {
		i.Group = durable.GroupName(durable.GroupOf(fi))
	}
	sealed, flagged := 0, 0
	for _, s := range i.Segments {
		if s.Stored == 0 {
			continue // not compressed yet
		}
		on, err := fsys.AppendOnly(filepath.Join(t.dir, filepath.FromSlash(s.File)))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		sealed++
		if on {
			flagged++
		}
	}
	open, err := fsys.AppendOnly(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case flagged == 0 && !open:
		i.AppendOnly = "off"
	case flagged < sealed:
		i.AppendOnly = "partly"
	case open:
		i.AppendOnly = appendOnlyAll
	default:
		i.AppendOnly = appendOnlySealed
	}
	return nil
}
