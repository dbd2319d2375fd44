package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// defaultDataDir is where a service keeps its state (FHS 3.0 §5.8).
const defaultDataDir = "/var/lib/kaizen-audit"

// pinsOfService is where in the data directory a service keeps its pins: its
// user has no home.
const pinsOfService = "known"

// account is a user of the system.
type account struct {
	name string
	uid  uint32
	cred *syscall.Credential
}

func lookupAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if _, digits := strconv.Atoi(name); err != nil && digits == nil {
		u, err = user.LookupId(name)
	}
	switch {
	case errors.As(err, new(user.UnknownUserError)), errors.As(err, new(user.UnknownUserIdError)):
		return nil, usageError{hinted{fmt.Errorf("--user: there is no user %q", name),
			"useradd --system --home-dir " + defaultDataDir + " --shell /usr/sbin/nologin " + advice.Quote(name)}}
	case err != nil:
		return nil, fmt.Errorf("--user %s: %w", name, err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("--user %s: its groups: %w", name, err)
	}
	number := func(s string) uint32 {
		n, parseErr := strconv.ParseUint(s, 10, 32)
		err = errors.Join(err, parseErr)
		return uint32(n)
	}
	c := &syscall.Credential{Uid: number(u.Uid), Gid: number(u.Gid)}
	for _, g := range groups {
		c.Groups = append(c.Groups, number(g))
	}
	if err != nil {
		return nil, fmt.Errorf("--user %s: %w", name, err)
	}
	if c.Uid == 0 {
		return nil, usagef("--user: %s is root, who needs no such trail", name)
	}
	return &account{u.Username, c.Uid, c}, nil
}

// initForUser makes a trail for a service: its files in dataDir, made by the
// user itself, and a link to them at the log's path, which the user can't move.
// What is there already stays, so that it may be run again.
func (a *app) initForUser(ctx context.Context, name, dataDir string, opts *audit.InitOptions) (*audit.Info, error) {
	if os.Geteuid() != 0 {
		return nil, usageError{hinted{fmt.Errorf("--user: this is user %d, and only root makes a trail for another", os.Geteuid()), "run it as root"}}
	}
	if opts.SuccessorOf != "" || opts.ForgetPin {
		return nil, usagef("--user goes with neither --successor-of nor --forget-pin: run these as that user")
	}
	who, err := lookupAccount(name)
	if err != nil {
		return nil, err
	}
	link, err := filepath.Abs(a.settings.log)
	if err != nil {
		return nil, err
	}
	if dataDir, err = filepath.Abs(dataDir); err != nil {
		return nil, err
	}
	target := filepath.Join(dataDir, filepath.Base(link))
	if link == target {
		return nil, usagef("--log %s: is in the data directory; --log is the path that is linked to the log there", advice.Quote(link))
	}
	// All that can be refused is, before anything is made.
	linked, err := linksTo(link, target)
	if err != nil {
		return nil, err
	}
	mode := fs.FileMode(0o700)
	if opts.Group != "" || opts.SocketGroup != "" {
		mode = 0o711 // the way to what the group may have; each file has its own mode
	}
	if err := giveDir(dataDir, who, mode); err != nil {
		return nil, err
	}
	if err := a.makeAs(ctx, who, target, dataDir, opts); err != nil {
		return nil, err
	}
	if !linked {
		if err := os.Symlink(target, link); err != nil {
			return nil, err
		}
		if err := durable.OS.SyncDir(filepath.Dir(link)); err != nil {
			return nil, err
		}
	}
	// As whoever uses it: by the link. Root pins it too, out of the user's reach.
	trail, err := audit.Open(link, &audit.Options{ReadOnly: true, MustExist: true, Warn: a.warn, StateDir: a.stateDir})
	if err != nil {
		return nil, err
	}
	info, err := trail.Info(ctx)
	return info, errors.Join(err, trail.Close())
}

// linksTo tells whether the link is there. Anything else at its path is an
// error.
func linksTo(link, target string) (bool, error) {
	fi, err := os.Lstat(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(link)); err != nil {
			return false, err
		}
		return false, nil
	case err != nil:
		return false, err
	case fi.Mode().Type() != fs.ModeSymlink:
		return false, hinted{fmt.Errorf("%s is there and is no link", link), "move it away, or name another path by --log"}
	}
	to, err := os.Readlink(link)
	if err != nil {
		return false, err
	}
	if to != target {
		return false, hinted{fmt.Errorf("%s is a link to %s, not to %s", link, to, target), "remove it, or name another path by --log, or its folder by --data-dir"}
	}
	return true, nil
}

// giveDir makes the data directory the user's, and nobody else's. It is opened
// once and then changed by its descriptor: whoever may write beside it must
// not have another one changed.
func giveDir(dir string, who *account, mode fs.FileMode) error {
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return err
	}
	dir = filepath.Join(parent, filepath.Base(dir))
	if err := checkParents(dir); err != nil {
		return err
	}
	made := durable.OS.Mkdir(dir, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	fi, err := d.Stat()
	if err != nil {
		return err
	}
	switch owner := durable.UserOf(fi); {
	case owner == int(who.uid):
	case owner != 0:
		return hinted{fmt.Errorf("%s belongs to user %d, not to %s", dir, owner, who.name), "name another folder by --data-dir"}
	default:
		// Root's: only an empty one is given away, since what lies in it is
		// somebody's too.
		if names, err := d.Readdirnames(1); err == nil && len(names) > 0 {
			return hinted{fmt.Errorf("%s belongs to root and is not empty", dir), "name another folder by --data-dir"}
		}
		if err := d.Chown(int(who.cred.Uid), int(who.cred.Gid)); err != nil {
			return err
		}
	}
	// Pass-through for a group that was given before stays.
	if have := fi.Mode().Perm(); made != nil && mode == 0o700 && have == 0o711 {
		mode = have
	}
	if err := d.Chmod(mode); err != nil {
		return err
	}
	return errors.Join(d.Sync(), durable.OS.SyncDir(filepath.Dir(dir)))
}

// checkParents refuses a folder that others could exchange: each above it must
// be root's and writable by root alone, or sticky.
func checkParents(dir string) error {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		fi, err := os.Stat(parent)
		if err != nil {
			return err
		}
		if owner := durable.UserOf(fi); owner != 0 || fi.Mode().Perm()&0o022 != 0 && fi.Mode()&fs.ModeSticky == 0 {
			return hinted{fmt.Errorf("%s: others than root may change %s (owner %d, mode %04o)", dir, parent, owner, fi.Mode().Perm()), "name another folder by --data-dir"}
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

// makeAs makes the trail as the user, in a process of its own: root changes
// nothing in a directory that somebody else can write. A trail that is there is
// left alone.
func (a *app) makeAs(ctx context.Context, who *account, log, dataDir string, opts *audit.InitOptions) error {
	command := []string{"init", "--log", log}
	if there, err := audit.Open(log, &audit.Options{ReadOnly: true, MustExist: true, StateDir: a.stateDir}); err == nil {
		if opts.Origin != "" && opts.Origin != there.Origin() {
			err = usagef("--origin: the trail has another one, %s", there.Origin())
		}
		return errors.Join(err, there.Close())
	} else if !errors.Is(err, audit.ErrNotFound) {
		return err
	}
	for _, f := range []struct{ name, value string }{
		{"origin", opts.Origin}, {"profile", opts.Profile}, {"group", opts.Group}, {"socket-group", opts.SocketGroup}, {"append-only", opts.AppendOnly}, {"key-file", opts.KeyFile}, {"key-url", a.settings.keyURL}, {"lifecycle-key", opts.LifecycleKeyFile}, {"signer", opts.Signer},
		{"segment-bytes", flagBytes(a.settings.segmentBytes)}, {"max-line", flagBytes(a.settings.maxLine)},
	} {
		if f.value != "" {
			command = append(command, "--"+f.name+"="+f.value)
		}
	}
	if opts.Encrypt {
		command = append(command, "--encrypt")
	}
	if opts.AnyFileSystem {
		command = append(command, "--any-file-system")
	}
	for _, to := range opts.CheckpointTo {
		command = append(command, "--checkpoint-to="+to)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, command...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dataDir, nil, &said
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envPrefix) || strings.HasPrefix(v, "HOME=") }),
		"HOME="+dataDir, envPrefix+"STATE="+filepath.Join(dataDir, pinsOfService))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who.cred}
	err = cmd.Run()
	switch {
	case err == nil:
		return nil
	case cmd.ProcessState == nil:
		return hinted{fmt.Errorf("run %s as %s: %w", program, who.name, err), "put the program where that user can run it, such as /usr/local/bin"}
	}
	text, hint, _ := strings.Cut(strings.TrimSpace(said.String()), "\nhint: ")
	text = strings.TrimPrefix(text, programName+": init: ")
	return hinted{fmt.Errorf("as %s: %s", who.name, cmp.Or(text, err.Error())), hint}
}

// flagBytes is a size as its flag takes it, "" where it was not given.
func flagBytes(b byteSize) string {
	if b.bytes == 0 {
		return ""
	}
	return strconv.FormatInt(b.bytes, 10)
}
