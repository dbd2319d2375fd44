// Command release builds what a release is made of, into -out: an archive of
// the program for each system, and SHA256SUMS over them. The programs are
// static and stripped of paths, the archives hold no time but the commit's: two
// builds of one commit with one Go give the same bytes.
//
// It is run from the root of the repository, by make release.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// systems are those that a release is for.
var systems = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

// shells are those that completion is for; the names are those under which
// each looks for the file.
var shells = map[string]string{
	"bash": "completions/bash/kaizen-audit",
	"zsh":  "completions/zsh/_kaizen-audit",
	"fish": "completions/fish/kaizen-audit.fish",
}

func main() {
	out := flag.String("out", "dist", "write archives and SHA256SUMS to this `directory`")
	version := flag.String("version", "", "the version, where the source is no checkout with tags")
	only := flag.String("only", strings.Join(systems, ","), "build these `systems`")
	flag.Parse()
	if err := release(*out, *version, strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// release builds the archives and their sums.
func release(out, version string, systems []string) error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	// The program of this machine writes manual and completions for all.
	here := filepath.Join(work, "kaizen-audit")
	if err := build(here, runtime.GOOS+"/"+runtime.GOARCH, version); err != nil {
		return err
	}
	text, err := exec.Command(here, "version", "--format", "json").Output()
	if err != nil {
		return fmt.Errorf("version: %w", err)
	}
	var about struct{ Version, Time string }
	if err := json.Unmarshal(text, &about); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	// Without a commit: the beginning of time, which is as good in every build.
	at := time.Unix(0, 0)
	if about.Time != "" {
		if at, err = time.Parse(time.RFC3339, about.Time); err != nil {
			return fmt.Errorf("version: %w", err)
		}
	}
	common, err := commonFiles(work, here)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, system := range systems {
		program := filepath.Join(work, strings.ReplaceAll(system, "/", "_"), "kaizen-audit")
		if err := build(program, system, version); err != nil {
			return err
		}
		data, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		name := "kaizen-audit_" + strings.Trim(about.Version, "()") + "_" + strings.ReplaceAll(system, "/", "_")
		packed, err := pack(name, append(slices.Clone(common), file{"kaizen-audit", data, 0o755}), at)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, name+".tar.gz"), packed, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s.tar.gz\n", sha256.Sum256(packed), name)
	}
	return os.WriteFile(filepath.Join(out, "SHA256SUMS"), sums.Bytes(), 0o644)
}

// build builds the program for a system: without cgo, so that it asks nothing
// of the machine that it runs on.
func build(out, system, version string) error {
	goos, goarch, ok := strings.Cut(system, "/")
	if !ok {
		return fmt.Errorf("%q is no system, such as linux/amd64", system)
	}
	// The checkout says the version, whatever GOFLAGS says of asking it.
	ldflags, stamp := "-s -w -buildid=", "true"
	if version != "" {
		stamp = "false"
		ldflags += " -X github.com/kaizen-audit/kaizen-audit/internal/cli.version=" + version
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs="+stamp, "-ldflags="+ldflags, "-o", out, "./cmd/kaizen-audit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", system, err)
	}
	return nil
}

// file is a file of an archive.
type file struct {
	name string
	data []byte
	mode fs.FileMode
}

// commonFiles are those that every archive has.
func commonFiles(work, program string) ([]file, error) {
	var files []file
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/cli.md", "docs/install.md"} {
		data, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, data, 0o644})
	}
	for shell, name := range shells {
		script, err := exec.Command(program, "completion", shell).Output()
		if err != nil {
			return nil, fmt.Errorf("completion %s: %w", shell, err)
		}
		files = append(files, file{name, script, 0o644})
	}
	pages := filepath.Join(work, "man1")
	if err := exec.Command(program, "man", pages).Run(); err != nil {
		return nil, fmt.Errorf("man: %w", err)
	}
	for dir, in := range map[string]string{pages: "man/man1", "packaging": "packaging"} {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(dir, name)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(name)
			files = append(files, file{path.Join(in, filepath.ToSlash(rel)), data, 0o644})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// pack makes a tar.gz with all files in the folder name.
func pack(name string, files []file, at time.Time) ([]byte, error) {
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(zip)
	for _, f := range files {
		err := archive.WriteHeader(&tar.Header{
			Name: path.Join(name, f.name), Mode: int64(f.mode), Size: int64(len(f.data)), ModTime: at, Format: tar.FormatUSTAR,
		})
		if err == nil {
			_, err = archive.Write(f.data)
		}
		if err != nil {
			return nil, fmt.Errorf("archive %s: %s: %w", name, f.name, err)
		}
	}
	if err := errors.Join(archive.Close(), zip.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
