// Package archive is where sealed segments go to outlive the machine: a small
// interface to a store that keeps what it was given until a date, and a driver
// for a directory (another disk, NFS). Package archive/s3 is the driver for
// object stores with object lock.
//
// What every driver keeps true, and archivetest checks:
//
//  1. Put without Replace never changes what has the name: it stores the object
//     or says ErrExists. Of two at once exactly one stores.
//  2. After Put has returned the object is durable and whole: its bytes have
//     Object.SHA256. Until then nobody can read part of it under its name.
//  3. What has a retention date or a hold is not replaced and not removed
//     before that date, and before the hold is lifted (ErrKept).
//
// A store is safe for concurrent use. It gives back bytes as they are stored:
// who reads them checks them.
package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Object is what Put stores.
type Object struct {
	// Name has parts of [A-Za-z0-9._-]+, separated by slashes; none begins with
	// a dot.
	Name   string
	Size   int64
	SHA256 [sha256.Size]byte
	// RetainUntil is until when nobody can replace or remove it; zero: no lock.
	RetainUntil time.Time
	// Parts are the digests of its parts of PartBytes, the last one shorter, where
	// who stores it has them; nil: a store that wants them computes them. What is sent
	// is checked against them, so that it need not be read twice.
	Parts [][sha256.Size]byte
	// Replace lets it take the place of what has the name; it goes with no
	// RetainUntil.
	Replace bool
}

// PartBytes is the length of Object.Parts, which a store may send side by side. S3 takes
// 10,000 parts: 160 GiB.
const PartBytes = 16 << 20

// Info is what a store knows of an object.
type Info struct {
	Name string
	Size int64
	// SHA256 is as it was stored; zero in a List, and where the store does not
	// know it.
	SHA256      [sha256.Size]byte
	RetainUntil time.Time // zero in a List, and where there is no lock
	Held        bool      // by a legal hold; false in a List
	// Stored is when it was, by the store's clock.
	Stored time.Time
}

// Store keeps objects. Errors that a caller may want to tell apart: ErrExists,
// ErrKept, ErrFull, fs.ErrNotExist.
type Store interface {
	// URL names the store, without secrets.
	URL() string
	// Put stores an object. body must stay as it is until Put returns.
	Put(ctx context.Context, o Object, body io.ReaderAt) error
	// Get reads an object from an offset to its end.
	Get(ctx context.Context, name string, offset int64) (io.ReadCloser, error)
	// Head tells what is known of an object.
	Head(ctx context.Context, name string) (Info, error)
	// List gives f every object whose name begins with prefix, ascending by name.
	List(ctx context.Context, prefix string, f func(Info) error) error
	// Remove removes an object; one that is not there is no error.
	Remove(ctx context.Context, name string) error
	// Expire removes every version of an object for good; one that is not there is no
	// error. ErrKept: one of them has a retention date or a hold, and all stay.
	Expire(ctx context.Context, name string) error
	// Hold sets or lifts a legal hold.
	Hold(ctx context.Context, name string, on bool) error
}

// History is a Store that keeps versions: what was stored first under a name is found
// whatever was put, or removed, over it since.
type History interface {
	// First gives f what was first stored under each name that begins with prefix,
	// ascending by name, and read to read it.
	First(ctx context.Context, prefix string, f func(i Info, read func(context.Context) (io.ReadCloser, error)) error) error
}

// Condition is how a store is, as far as it can tell.
type Condition struct {
	// Lock is what keeps an object until its date: "compliance" (nobody removes it
	// sooner), "governance" (who has the permission can), "none".
	Lock string
	// Ahead is how far the store's clock is ahead of this machine's; zero where it is
	// the same clock.
	Ahead time.Duration
}

var (
	// ErrExists: the name has an object, which stays as it is.
	ErrExists = errors.New("the object is there already")
	// ErrKept: a retention date or a hold keeps the object.
	ErrKept = errors.New("the object is kept by its retention date or a hold")
	// ErrFull: the store has no space, or its quota is used up.
	ErrFull = errors.New("the archive is full")
)

// checkName refuses names that a driver could take for something else.
func checkName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		ok := part != "" && part[0] != '.' && !strings.ContainsFunc(part, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
		})
		if !ok {
			return fmt.Errorf("archive: %q is no name of an object: %w", name, fs.ErrInvalid)
		}
	}
	return nil
}

// Check refuses an object that no driver takes.
func (o Object) Check() error {
	if err := checkName(o.Name); err != nil {
		return err
	}
	if o.Parts != nil && int64(len(o.Parts)) != (o.Size+PartBytes-1)/PartBytes {
		return fmt.Errorf("archive: object %s: %d digests of parts do not fit its size: %w", o.Name, len(o.Parts), fs.ErrInvalid)
	}
	if o.Size < 0 || o.Replace && !o.RetainUntil.IsZero() {
		return fmt.Errorf("archive: object %s: replace and a retention date exclude each other, and its size is not negative: %w", o.Name, fs.ErrInvalid)
	}
	return nil
}
