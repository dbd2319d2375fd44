// Package s3test runs a real S3 server with object lock for tests: versitygw, which
// it builds where that was not done before.
package s3test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/kaizen-audit/kaizen-audit/archive/s3"
)

const version = "v1.8.0"

// Server is a running server.
type Server struct {
	// Address is host and port, on loopback.
	Address string
	// Key and Secret are its root user's, made for this run.
	Key, Secret string
	// Root is the directory with its buckets.
	Root string
}

var building sync.Mutex

// errBuild: the server can't be built here.
var errBuild = errors.New("versitygw can't be built")

// program builds the server, or finds it as it was built before.
func program() (string, error) {
	building.Lock()
	defer building.Unlock()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "kaizen-audit-tests", "versitygw-"+version)
	name := filepath.Join(dir, "versitygw")
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return name, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Beside it first: of two test processes that build it each has a whole one.
	bin, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(bin)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "install", "github.com/versity/versitygw/cmd/versitygw@"+version)
	build.Env = append(os.Environ(), "GOBIN="+bin, "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %w\n%s", errBuild, err, out)
	}
	return name, os.Rename(filepath.Join(bin, "versitygw"), name)
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartIn(t, t.TempDir())
}

// StartIn is Start with the buckets below a directory.
func StartIn(t testing.TB, dir string) *Server {
	t.Helper()
	s, stop, err := Run(dir)
	if errors.Is(err, errBuild) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// Run runs a server with its buckets below a directory, until stop is called or this
// process ends.
func Run(dir string) (s *Server, stop func(), err error) {
	name, err := program()
	if err != nil {
		return nil, nil, err
	}
	s = &Server{Key: rand.Text(), Secret: rand.Text(), Root: filepath.Join(dir, "buckets")}
	versions := filepath.Join(dir, "versions")
	for _, d := range []string{s.Root, versions} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, nil, err
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	s.Address = free.Addr().String()
	if err := free.Close(); err != nil {
		return nil, nil, err
	}
	var log strings.Builder
	cmd := exec.Command(name, "--port", s.Address, "--quiet", "posix", "--versioning-dir", versions, s.Root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.Key, "ROOT_SECRET_KEY="+s.Secret)
	cmd.Stdout, cmd.Stderr = &log, &log
	// It ends with this process, however that ends.
	cmd.SysProcAttr = endsWithParent()
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.Address)
		if err == nil {
			return s, stop, conn.Close()
		}
		select {
		case err := <-done:
			return nil, nil, fmt.Errorf("versitygw ended: %w\n%s", err, log.String())
		default:
		}
		if time.Since(began) > 30*time.Second {
			stop()
			return nil, nil, fmt.Errorf("versitygw does not answer: %w", err)
		}
	}
}

// Credentials are the root user's.
func (s *Server) Credentials() *credentials.Credentials {
	return credentials.NewStaticV4(s.Key, s.Secret, "")
}

// Environ are the credentials as a program finds them.
func (s *Server) Environ() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.Key, "AWS_SECRET_ACCESS_KEY=" + s.Secret}
}

// URL is the URL of a bucket of the server.
func (s *Server) URL(bucket string) string { return URLAt(s.Address, bucket) }

// URLAt is URL where the server is reached at another address.
func URLAt(address, bucket string) string {
	return fmt.Sprintf("s3://%s?endpoint=http://%s&region=us-east-1&path_style=true", bucket, address)
}

// Bucket makes a bucket with object lock.
func (s *Server) Bucket(t testing.TB, bucket string) *s3.Store {
	t.Helper()
	store, err := s3.Open(s.URL(bucket), &s3.Options{Credentials: s.Credentials()})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}
