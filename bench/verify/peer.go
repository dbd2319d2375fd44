package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

// head is what a checkpoint says (c2sp.org/tlog-checkpoint).
type head struct {
	size int64
	root [sha256.Size]byte
}

func trailDir(log string) string { return strings.TrimSuffix(log, ".jsonl") + ".trail" }

func readHead(log string) (h head, err error) {
	b, err := os.ReadFile(filepath.Join(trailDir(log), "checkpoint"))
	if err != nil {
		return h, err
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 3 {
		return h, errors.New("checkpoint: fewer than three lines")
	}
	if h.size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return h, fmt.Errorf("checkpoint: %w", err)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return h, errors.New("checkpoint: the third line is no root")
	}
	return head{h.size, [sha256.Size]byte(root)}, nil
}

// span is a run of lines in one file.
type span struct {
	path          string
	offset, bytes int64
}

// part is what one thread hashes: spans in order, from the entry first on.
type part struct {
	first uint64
	spans []span
}

// split gives each thread a part of the trail. It is not timed.
func split(log string, size int64, threads int) ([]part, error) {
	sealed, err := filepath.Glob(filepath.Join(trailDir(log), "segments", "*.jsonl.zst"))
	if err != nil {
		return nil, err
	}
	if len(sealed) == 0 {
		return splitLines(log, size, threads)
	}
	slices.Sort(sealed)
	var parts []part
	each := (len(sealed) + threads - 1) / threads
	for group := range slices.Chunk(sealed, each) {
		name, _, _ := strings.Cut(filepath.Base(group[0]), ".")
		first, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			return nil, err
		}
		p := part{first: first}
		for _, path := range group {
			info, err := os.Stat(path)
			if err != nil {
				return nil, err
			}
			p.spans = append(p.spans, span{path, 0, info.Size()})
		}
		parts = append(parts, p)
	}
	// What came after the last seal, such as the entry about closing.
	info, err := os.Stat(log)
	if err != nil {
		return nil, err
	}
	last := &parts[len(parts)-1]
	last.spans = append(last.spans, span{log, 0, info.Size()})
	return parts, nil
}

// splitLines cuts a file of size lines into parts of as many lines each.
func splitLines(log string, size int64, threads int) ([]part, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	each := (size + int64(threads) - 1) / int64(threads)
	parts := []part{{}}
	r := bufio.NewReaderSize(f, 1<<20)
	var offset, begin int64
	for n := int64(1); ; n++ {
		line, err := r.ReadSlice('\n')
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if offset += int64(len(line)); n%each == 0 && n < size {
			parts[len(parts)-1].spans = []span{{log, begin, offset - begin}}
			parts = append(parts, part{first: uint64(n)})
			begin = offset
		}
	}
	parts[len(parts)-1].spans = []span{{log, begin, offset - begin}}
	return parts, nil
}

var ranges = compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// rootOf is the root over all parts: a compact range for each, in parallel,
// then merged.
func rootOf(parts []part) (root [sha256.Size]byte, err error) {
	var (
		wg   sync.WaitGroup
		done = make([]*compact.Range, len(parts))
		errs = make([]error, len(parts))
	)
	for i, p := range parts {
		wg.Go(func() { done[i], errs[i] = p.hash() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return root, err
	}
	for _, r := range done[1:] {
		if err := done[0].AppendRange(r, nil); err != nil {
			return root, err
		}
	}
	b, err := done[0].GetRootHash(nil)
	if err != nil {
		return root, err
	}
	return [sha256.Size]byte(b), nil
}

func (p part) hash() (*compact.Range, error) {
	r := ranges.NewEmptyRange(p.first)
	for _, s := range p.spans {
		if err := s.lines(func(line []byte) error {
			digest := sha256.Sum256(line)
			return r.Append(rfc6962.DefaultHasher.HashLeaf(digest[:]), nil)
		}); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (s span) lines(do func(line []byte) error) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = io.NewSectionReader(f, s.offset, s.bytes)
	if strings.HasSuffix(s.path, ".zst") {
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		defer d.Close()
		in = d
	}
	r := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := r.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return err
		}
	}
}
