// Package s3 is the driver of package archive for object stores that speak S3,
// with object lock.
//
// The bucket must have object lock, which can only be switched on when it is made.
// Objects are stored with If-None-Match, so that of two writers one is told; their
// SHA-256 goes along, is checked by the server, and stays in their metadata.
//
// A locked version can't be deleted or overwritten by anybody in mode compliance,
// the account's owner included. What the server does allow is to put another
// version, or a delete marker, on top: a reader sees that, and the locked version
// is still there, under its version id.
package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
)

// Options are what the URL does not say.
type Options struct {
	// AllowHTTP lets the endpoint be plain HTTP on another machine too.
	AllowHTTP bool
	// Credentials are those of the usual chain where nil: AWS_ACCESS_KEY_ID and
	// AWS_SECRET_ACCESS_KEY, the shared credentials file, the role of the machine.
	Credentials *credentials.Credentials
}

// Store is a bucket, or what is below a prefix of it.
type Store struct {
	core   minio.Core
	url    string
	bucket string
	prefix string // "" or with a slash at its end
	region string
	mode   minio.RetentionMode // "" for no lock
	clock  *serverClock
}

// serverClock listens to what the server's answers say the time is.
type serverClock struct {
	http.RoundTripper
	ahead atomic.Int64 // of this machine's, in nanoseconds
}

func (c *serverClock) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		if at, err := http.ParseTime(a.Header.Get("Date")); err == nil {
			c.ahead.Store(int64(time.Until(at)))
		}
	}
	return a, err
}

// partBytes is the size of a part of a larger object, which is in memory while it
// is sent.
const partBytes = archive.PartBytes

// sideBySide is how many parts are sent at once, as minio-go does by default.
const sideBySide = 4

// maxRetries is how often a request is sent that the server was too busy for, or
// that broke off; the waits in between grow to a second. Whoever archives comes
// again anyway.
const maxRetries = 4

// Open is the store of an s3: URL:
//
//	s3://BUCKET[/PREFIX][?endpoint=URL&region=R&path_style=true&lock=compliance]
//
// Without endpoint it is AWS. lock is compliance (the default), governance (who has
// the permission for it can lift it) or none. The URL has no credentials. It asks
// nobody yet.
func Open(rawURL string, opts *Options) (*Store, error) {
	if opts == nil {
		opts = &Options{}
	}
	fail := func(format string, args ...any) (*Store, error) {
		return nil, fmt.Errorf("archive: s3: %w", fmt.Errorf(format, args...))
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Fragment != "" {
		return fail("this is no URL like s3://bucket/prefix?endpoint=https://host")
	}
	if u.User != nil {
		return fail("credentials do not belong in the URL: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the shared credentials file")
	}
	s := &Store{bucket: u.Host, mode: minio.Compliance}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		if path.Clean("/"+prefix) != "/"+prefix {
			return fail("the prefix %q is not a plain path", prefix)
		}
		s.prefix = prefix + "/"
	}
	endpoint, style := "https://s3.amazonaws.com", minio.BucketLookupAuto
	for key, values := range u.Query() {
		value := values[len(values)-1]
		switch key {
		case "endpoint":
			endpoint = value
		case "region":
			s.region = value
		case "path_style":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return fail("path_style must be true or false")
			}
			if on {
				style = minio.BucketLookupPath
			}
		case "lock":
			switch value {
			case "compliance":
			case "governance":
				s.mode = minio.Governance
			case "none":
				s.mode = ""
			default:
				return fail("lock must be compliance, governance or none")
			}
		default:
			return fail("there is no setting %q; there are endpoint, region, path_style and lock", key)
		}
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" || e.User != nil || strings.Trim(e.Path, "/") != "" {
		return fail("endpoint must be a URL like https://host:9000, without path and credentials")
	}
	if e.Scheme == "http" && !opts.AllowHTTP && !loopback(e.Hostname()) {
		return fail("%w", advice.For(fmt.Errorf("the endpoint %s is not encrypted: what is archived could be read and changed on the way", e.Host), "use https, or --allow-http where the network is trusted"))
	}
	creds := opts.Credentials
	if creds == nil {
		creds = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}})
	}
	transport, err := minio.DefaultTransport(e.Scheme == "https")
	if err != nil {
		return fail("%w", err)
	}
	s.clock = &serverClock{RoundTripper: transport}
	client, err := minio.New(e.Host, &minio.Options{Creds: creds, Secure: e.Scheme == "https", Region: s.region, BucketLookup: style, MaxRetries: maxRetries, Transport: s.clock})
	if err != nil {
		return fail("%w", err)
	}
	s.core, s.url = minio.Core{Client: client}, u.String()
	return s, nil
}

// OpenStore is Open with the default options, for audit.ManagerOptions.OpenS3.
func OpenStore(url string) (archive.Store, error) {
	s, err := Open(url, nil)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// URL is the store's URL.
func (s *Store) URL() string { return s.url }

// Create makes the bucket, with object lock; one that is there must have it.
func (s *Store) Create(ctx context.Context) error {
	err := s.core.MakeBucket(ctx, s.bucket, minio.MakeBucketOptions{Region: s.region, ObjectLocking: s.mode != ""})
	if code := minio.ToErrorResponse(err).Code; code == minio.BucketAlreadyOwnedByYou || code == minio.BucketAlreadyExists {
		err = nil
	}
	if err == nil && s.mode != "" {
		_, _, _, _, err = s.core.GetObjectLockConfig(ctx, s.bucket)
	}
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", s.bucket, s.explain(err))
	}
	return nil
}

// The headers of object lock.
const (
	untilHeader = "X-Amz-Object-Lock-Retain-Until-Date"
	holdHeader  = "X-Amz-Object-Lock-Legal-Hold"
)

// Condition asks how the bucket locks, and listens to the server's clock.
func (s *Store) Condition(ctx context.Context) (archive.Condition, error) {
	c := archive.Condition{Lock: "none"}
	if s.mode == "" {
		err := s.List(ctx, "trail.json", func(archive.Info) error { return nil })
		c.Ahead = time.Duration(s.clock.ahead.Load())
		return c, err
	}
	_, _, _, _, err := s.core.GetObjectLockConfig(ctx, s.bucket)
	c.Ahead = time.Duration(s.clock.ahead.Load())
	if err != nil {
		return c, fmt.Errorf("archive: %w", s.explain(err))
	}
	c.Lock = strings.ToLower(string(s.mode))
	return c, nil
}

// shaKey is the digest's key in an object's metadata.
const shaKey = "Sha256"

// Put sends an object at once, or a large one in parts.
func (s *Store) Put(ctx context.Context, o archive.Object, body io.ReaderAt) error {
	if err := o.Check(); err != nil {
		return err
	}
	opts := minio.PutObjectOptions{UserMetadata: map[string]string{shaKey: hex.EncodeToString(o.SHA256[:])}}
	if !o.RetainUntil.IsZero() && s.mode != "" {
		opts.Mode, opts.RetainUntilDate = s.mode, o.RetainUntil
	}
	send := s.putWhole
	if o.Size > partBytes {
		send = s.putParts
	}
	err := send(ctx, o, body, opts)
	for range maxRetries {
		// Another upload of the name was under way: who is told so may have won.
		if response(err).Code != "ConditionalRequestConflict" {
			break
		}
		err = send(ctx, o, body, opts)
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", o.Name, s.explain(err))
	}
	return nil
}

var errChanged = errors.New("what was to be stored has changed meanwhile")

// readPart reads a part of what is sent.
func readPart(body io.ReaderAt, offset, size int64) ([]byte, error) {
	data := make([]byte, size)
	n, err := body.ReadAt(data, offset)
	if int64(n) == size {
		return data, nil
	}
	if err == nil || err == io.EOF {
		err = errChanged
	}
	return nil, err
}

func (s *Store) putWhole(ctx context.Context, o archive.Object, body io.ReaderAt, opts minio.PutObjectOptions) error {
	data, err := readPart(body, 0, o.Size)
	if err != nil {
		return err
	}
	if sha256.Sum256(data) != o.SHA256 {
		return errChanged
	}
	if !o.Replace {
		opts.SetMatchETagExcept("*")
	}
	opts.UserMetadata["X-Amz-Checksum-Sha256"] = base64.StdEncoding.EncodeToString(o.SHA256[:])
	opts.DisableContentSha256 = true // as in putPart
	sum := md5.Sum(data)             // some servers want it where there is a lock
	_, err = s.core.PutObject(ctx, s.bucket, s.prefix+o.Name, bytes.NewReader(data), o.Size,
		base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(o.SHA256[:]), opts)
	return err
}

// putParts sends a large object part by part. Nobody sees it before the last step,
// which also decides whether the name is free.
func (s *Store) putParts(ctx context.Context, o archive.Object, body io.ReaderAt, opts minio.PutObjectOptions) (err error) {
	name := s.prefix + o.Name
	opts.UserMetadata["X-Amz-Checksum-Algorithm"] = "SHA256"
	id, err := s.core.NewMultipartUpload(ctx, s.bucket, name, opts)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Parts cost money until somebody throws them away.
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			err = errors.Join(err, s.core.AbortMultipartUpload(clean, s.bucket, name, id))
		}
	}()
	// Parts are sent side by side. Where their digests are not known they are read in
	// their order, for that of the whole; else the server's look at each is enough.
	whole := sha256.New()
	parts := make([]minio.CompletePart, (o.Size+partBytes-1)/partBytes)
	errs := make([]error, len(parts))
	slots := make(chan struct{}, sideBySide)
	var sending sync.WaitGroup
	sendCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	for n := range parts {
		slots <- struct{}{}
		offset := int64(n) * partBytes
		data, err := readPart(body, offset, min(partBytes, o.Size-offset))
		if err == nil {
			err = sendCtx.Err() // another part failed
		}
		if err != nil {
			errs[n] = err
			break
		}
		sending.Go(func() {
			defer func() { <-slots }()
			var sum [sha256.Size]byte
			if o.Parts != nil {
				sum = o.Parts[n]
			} else {
				sum = sha256.Sum256(data)
			}
			if parts[n], errs[n] = s.putPart(sendCtx, name, id, n+1, data, sum); errs[n] != nil {
				cancel()
			}
		})
		if o.Parts == nil {
			whole.Write(data)
		}
	}
	sending.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if o.Parts == nil && !bytes.Equal(whole.Sum(nil), o.SHA256[:]) {
		return errChanged
	}
	var last minio.PutObjectOptions
	if !o.Replace {
		last.SetMatchETagExcept("*")
	}
	_, err = s.core.CompleteMultipartUpload(ctx, s.bucket, name, id, parts, last)
	return err
}

// putPart sends one part with its checksum. The request is signed with that: the client
// would hash a part again to sign it piece by piece where the endpoint is plain HTTP.
func (s *Store) putPart(ctx context.Context, name, id string, number int, data []byte, sum [sha256.Size]byte) (minio.CompletePart, error) {
	sum64 := base64.StdEncoding.EncodeToString(sum[:])
	p, err := s.core.PutObjectPart(ctx, s.bucket, name, id, number, bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{
		Sha256Hex: hex.EncodeToString(sum[:]), DisableContentSha256: true, CustomHeader: http.Header{"X-Amz-Checksum-Sha256": {sum64}},
	})
	return minio.CompletePart{PartNumber: p.PartNumber, ETag: p.ETag, ChecksumSHA256: sum64}, err
}

// Get reads an object from an offset on.
func (s *Store) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	var opts minio.GetObjectOptions
	if offset > 0 {
		if err := opts.SetRange(offset, 0); err != nil {
			return nil, err
		}
	}
	r, _, _, err := s.core.GetObject(ctx, s.bucket, s.prefix+name, opts)
	if err != nil {
		return nil, fmt.Errorf("archive: %s: %w", name, s.explain(err))
	}
	return r, nil
}

// Head asks for an object's metadata.
func (s *Store) Head(ctx context.Context, name string) (archive.Info, error) {
	i := archive.Info{Name: name}
	o, err := s.core.StatObject(ctx, s.bucket, s.prefix+name, minio.StatObjectOptions{})
	if minio.ToErrorResponse(err).StatusCode == http.StatusForbidden {
		err = s.why(ctx, name, err)
	}
	if err != nil {
		return i, fmt.Errorf("archive: %s: %w", name, s.explain(err))
	}
	i.Size, i.Stored = o.Size, o.LastModified
	for key, value := range o.UserMetadata {
		if sum, err := hex.DecodeString(value); strings.EqualFold(key, shaKey) && err == nil && len(sum) == sha256.Size {
			i.SHA256 = [sha256.Size]byte(sum)
		}
	}
	if until := o.Metadata.Get(untilHeader); until != "" {
		if i.RetainUntil, err = time.Parse(time.RFC3339, until); err != nil {
			return i, fmt.Errorf("archive: %s: its retention date is no time", name)
		}
	}
	i.Held = o.Metadata.Get(holdHeader) == "ON"
	return i, nil
}

// why asks for an object where a HEAD was refused, whose answer has no body: a wrong
// clock looks like a wrong key there.
func (s *Store) why(ctx context.Context, name string, refused error) error {
	r, _, _, err := s.core.GetObject(ctx, s.bucket, s.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	return errors.Join(refused, r.Close())
}

// List lists what begins with a prefix.
func (s *Store) List(ctx context.Context, prefix string, f func(archive.Info) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.core.Client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return fmt.Errorf("list archive: %w", s.explain(o.Err))
		}
		if err := f(archive.Info{Name: strings.TrimPrefix(o.Key, s.prefix), Size: o.Size, Stored: o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// First lists the oldest version of each name: a delete marker, or another version on
// top, does not hide it.
func (s *Store) First(ctx context.Context, prefix string, f func(archive.Info, func(context.Context) (io.ReadCloser, error)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var last minio.ObjectInfo // versions of a name come together, the newest first
	give := func() error {
		if last.Key == "" {
			return nil
		}
		o := last
		return f(archive.Info{Name: strings.TrimPrefix(o.Key, s.prefix), Size: o.Size, Stored: o.LastModified}, func(ctx context.Context) (io.ReadCloser, error) {
			r, _, _, err := s.core.GetObject(ctx, s.bucket, o.Key, minio.GetObjectOptions{VersionID: o.VersionID})
			if err != nil {
				return nil, fmt.Errorf("archive: %s: %w", o.Key, s.explain(err))
			}
			return r, nil
		})
	}
	for o := range s.core.Client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			return fmt.Errorf("list archive: %w", s.explain(o.Err))
		}
		if o.IsDeleteMarker {
			continue
		}
		if o.Key != last.Key {
			if err := give(); err != nil {
				return err
			}
		}
		if o.Key != last.Key || !o.LastModified.After(last.LastModified) {
			last = o
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return give()
}

// Remove puts a delete marker where the bucket keeps versions.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := s.core.RemoveObject(ctx, s.bucket, s.prefix+name, minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("remove %s from the archive: %w", name, s.explain(err))
	}
	return nil
}

// Expire removes the versions of a name one by one, delete markers too. Whether one is
// kept is looked at before the first goes; the server refuses all the same.
func (s *Store) Expire(ctx context.Context, name string) error {
	err := s.expire(ctx, s.prefix+name)
	if err != nil {
		return fmt.Errorf("remove %s from the archive: %w", name, s.explain(err))
	}
	return nil
}

func (s *Store) expire(ctx context.Context, key string) error {
	listing, cancel := context.WithCancel(ctx)
	defer cancel()
	var versions []minio.ObjectInfo
	for o := range s.core.Client.ListObjects(listing, s.bucket, minio.ListObjectsOptions{Prefix: key, Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			return o.Err
		}
		if o.Key == key {
			versions = append(versions, o)
		}
	}
	for _, v := range versions {
		if v.IsDeleteMarker {
			continue
		}
		o, err := s.core.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{VersionID: v.VersionID})
		if err != nil {
			return err
		}
		until, err := time.Parse(time.RFC3339, o.Metadata.Get(untilHeader))
		if o.Metadata.Get(holdHeader) == "ON" || err == nil && time.Now().Before(until) {
			return archive.ErrKept
		}
	}
	// The newest last: what is left after an interruption is found by its name.
	for _, v := range slices.Backward(versions) {
		if err := s.core.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{VersionID: v.VersionID}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Hold sets or lifts the legal hold of object lock.
func (s *Store) Hold(ctx context.Context, name string, on bool) error {
	status := minio.LegalHoldDisabled
	if on {
		status = minio.LegalHoldEnabled
	}
	if err := s.core.PutObjectLegalHold(ctx, s.bucket, s.prefix+name, minio.PutObjectLegalHoldOptions{Status: &status}); err != nil {
		return fmt.Errorf("hold %s in the archive: %w", name, s.explain(err))
	}
	return nil
}

// response is what the server said, also where something was joined to it.
func response(err error) minio.ErrorResponse {
	var r minio.ErrorResponse
	if errors.As(err, &r) {
		return r
	}
	return minio.ToErrorResponse(err)
}

// explain says what an error of S3 means here.
func (s *Store) explain(err error) error {
	if errors.Is(err, archive.ErrKept) {
		return err
	}
	r := response(err)
	switch r.Code {
	case minio.NoSuchBucket:
		return advice.For(fmt.Errorf("there is no bucket %s", s.bucket), "make it with object lock: kaizen-audit archive push --create-bucket")
	case "ObjectLockConfigurationNotFoundError":
		return advice.For(fmt.Errorf("bucket %s has no object lock, which is chosen when a bucket is made", s.bucket), "take another bucket, or lock=none where nothing needs to be locked")
	case "RequestTimeTooSkewed":
		return advice.For(errors.New("the clocks of this machine and of the server are too far apart"), "set the clock: timedatectl")
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return advice.For(fmt.Errorf("%w: %s", fs.ErrPermission, r.Code), "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
	case minio.PreconditionFailed:
		return archive.ErrExists
	case "ObjectLocked":
		return archive.ErrKept
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage":
		return fmt.Errorf("%w: %s", archive.ErrFull, r.Code)
	case "InvalidRequest":
		if strings.Contains(strings.ReplaceAll(r.Message, " ", ""), "ObjectLock") {
			return s.explain(minio.ErrorResponse{Code: "ObjectLockConfigurationNotFoundError"})
		}
	}
	switch r.StatusCode {
	case http.StatusNotFound:
		return fs.ErrNotExist
	case http.StatusPreconditionFailed:
		return archive.ErrExists
	case http.StatusInsufficientStorage:
		return archive.ErrFull
	}
	return err
}
