package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// inRepository runs the test at the root of the repository, as make does.
func inRepository(t *testing.T) {
	t.Helper()
	t.Chdir(filepath.Join("..", ".."))
	t.Setenv("GOWORK", "off")
}

// TestReleaseIsStaticAndRuns: the archive has what the documents say, its
// program runs and needs nothing of the machine, its sum is right, and another
// build gives the same bytes.
func TestReleaseIsStaticAndRuns(t *testing.T) {
	inRepository(t)
	system := runtime.GOOS + "/" + runtime.GOARCH
	var archives [2][]byte
	name := "kaizen-audit_v1.2.3-test_" + strings.ReplaceAll(system, "/", "_")
	for i := range archives {
		out := t.TempDir()
		if err := release(out, "v1.2.3-test", []string{system}); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(filepath.Join(out, name+".tar.gz")); err != nil {
			t.Fatal(err)
		}
		sums, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
		if want := fmt.Sprintf("%x  %s.tar.gz\n", sha256.Sum256(archives[i]), name); err != nil || string(sums) != want {
			t.Errorf("SHA256SUMS: %q, %v; want %q", sums, err, want)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two builds differ")
	}

	files := unpack(t, archives[0])
	for _, want := range []string{
		"LICENSE", "README.md", "docs/install.md", "man/man1/kaizen-audit.1", "man/man1/kaizen-audit-record.1",
		"completions/bash/kaizen-audit", "completions/zsh/_kaizen-audit", "completions/fish/kaizen-audit.fish",
		"packaging/systemd/kaizen-audit.service", "kaizen-audit",
	} {
		if len(files[name+"/"+want]) == 0 {
			t.Errorf("the archive lacks %s", want)
		}
	}
	program := filepath.Join(t.TempDir(), "kaizen-audit")
	if err := os.WriteFile(program, files[name+"/kaizen-audit"], 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "kaizen-audit v1.2.3-test, ") {
		t.Errorf("%s, %v", out, err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("not static: it has a segment %s", p.Type)
		}
	}
	if root, err := os.Getwd(); err != nil || bytes.Contains(files[name+"/kaizen-audit"], []byte(root+"/")) {
		t.Errorf("the program holds the path of the checkout, %v", err)
	}
}

// TestOtherSystemsAreBuilt: each system of a release that is not this one.
func TestOtherSystemsAreBuilt(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the standard library for other systems")
	}
	inRepository(t)
	for _, system := range systems {
		if system == runtime.GOOS+"/"+runtime.GOARCH {
			continue
		}
		out := filepath.Join(t.TempDir(), "kaizen-audit")
		if err := build(out, system, "v1.2.3-test"); err != nil {
			t.Error(err)
		} else if fi, err := os.Stat(out); err != nil || fi.Size() < 1<<20 {
			t.Errorf("%s: no program: %v", system, err)
		}
	}
}

func unpack(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
