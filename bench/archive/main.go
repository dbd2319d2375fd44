// Archive measures what archiving costs beside a plain upload to the same server:
//
//	go run ./archive [--json FILE] [--dir DIR] [--quick] [--rounds N]
//
// A trail has sealed segments of some 60 MB each, of what does not compress. In each
// round all of it is archived to a fresh place of an S3 server of this machine
// (versitygw, built once), with all that belongs to an archive: digests, tail,
// checkpoints, locks. Before or after it, in turns, the same client uploads the same
// segments as they are, with its defaults. The bar is that of the product: the archive
// has 80 % of the upload's throughput, by the median of the rounds' ratios.
package main

import (
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive/s3"
	"github.com/kaizen-audit/kaizen-audit/archive/s3/s3test"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
)

// bar is the least that archiving may have of a plain upload's throughput.
const bar = 0.8

func main() {
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "measure below this directory; it says which disk")
	quick := flag.Bool("quick", false, "small segments, once: shows that everything runs, measures nothing")
	rounds := flag.Int("rounds", 9, "how many pairs are measured")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	w := work{segments: 2, entries: 4000, rounds: *rounds}
	if *quick {
		w = quickly
	}
	if err := run(os.Stdout, *dir, *jsonFile, w); err != nil {
		fmt.Fprintln(os.Stderr, "bench archive:", err)
		os.Exit(1)
	}
}

// work is what is measured.
type work struct {
	segments, entries int // entries are of one segment
	rounds            int
}

var quickly = work{segments: 2, entries: 20, rounds: 1}

type results struct {
	Machine measure.Machine `json:"machine"`
	Seconds float64         `json:"seconds"`
	Bytes   int64           `json:"bytes"` // of the sealed segments
	// Archive and Upload are the medians in megabytes of these a second, Ratio is the
	// median of the rounds' ratios, and Low and High are their extremes.
	Archive float64   `json:"archive_mb_s"`
	Upload  float64   `json:"upload_mb_s"`
	Ratio   float64   `json:"ratio"`
	Low     float64   `json:"low"`
	High    float64   `json:"high"`
	Ratios  []float64 `json:"ratios"`
}

func run(out io.Writer, dir, jsonFile string, w work) (err error) {
	start := time.Now()
	if dir, err = os.MkdirTemp(dir, "bench-archive-"); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, stop, err := s3test.Run(filepath.Join(dir, "server"))
	if err != nil {
		return err
	}
	defer stop()
	ctx := context.Background()
	p := &pair{server: server, ctx: ctx}
	if p.trail, err = fill(ctx, filepath.Join(dir, "log.jsonl"), w); err != nil {
		return err
	}
	defer p.trail.Close()
	if p.files, err = filepath.Glob(filepath.Join(p.trail.Dir(), "segments", "*.zst")); err != nil || len(p.files) != w.segments {
		return errors.Join(fmt.Errorf("%d segments, want %d", len(p.files), w.segments), err)
	}
	res := results{Machine: measure.ThisMachine()}
	for _, f := range p.files {
		fi, err := os.Stat(f)
		if err != nil {
			return err
		}
		res.Bytes += fi.Size()
	}
	bucket, err := s3.Open(server.URL("bench"), &s3.Options{Credentials: server.Credentials()})
	if err == nil {
		err = bucket.Create(ctx)
	}
	if err != nil {
		return err
	}
	if p.client, err = minio.New(server.Address, &minio.Options{Creds: server.Credentials(), Region: "us-east-1"}); err != nil {
		return err
	}
	var archives, uploads []float64
	for n := -1; n < w.rounds; n++ { // the first pair warms up
		steps := []func(int) (time.Duration, error){p.archive, p.upload}
		took := make([]time.Duration, len(steps))
		for i := range steps {
			if n%2 != 0 {
				i = len(steps) - 1 - i
			}
			if took[i], err = steps[i](n + 1); err != nil {
				return err
			}
		}
		// The disk is as full before each round.
		for _, kind := range []string{"plain-", "archive-"} {
			if err := os.RemoveAll(filepath.Join(server.Root, "bench", fmt.Sprint(kind, n+1))); err != nil {
				return err
			}
		}
		if n < 0 && w.rounds > 1 {
			continue
		}
		a, u := rate(res.Bytes, took[0]), rate(res.Bytes, took[1])
		archives, uploads, res.Ratios = append(archives, a), append(uploads, u), append(res.Ratios, a/u)
	}
	res.Archive, res.Upload, res.Ratio = median(archives), median(uploads), median(res.Ratios)
	res.Low, res.High = slices.Min(res.Ratios), slices.Max(res.Ratios)
	res.Seconds = time.Since(start).Seconds()
	err = measure.WriteCells(out, [][]string{{"", "MB/s"}, {"archive", fmt.Sprintf("%.0f", res.Archive)}, {"plain upload", fmt.Sprintf("%.0f", res.Upload)}})
	if err != nil {
		return err
	}
	verdict := "kept"
	if res.Ratio < bar {
		verdict = "MISSED"
	}
	fmt.Fprintf(out, "\n%s; %d segments of %d bytes in all; %.0f s.\n\nthe archive has %.2f of the upload's throughput (%.2f to %.2f in %d pairs), bar %.2f  %s\n",
		res.Machine, w.segments, res.Bytes, res.Seconds, res.Ratio, res.Low, res.High, len(res.Ratios), bar, verdict)
	if jsonFile == "" {
		return nil
	}
	return measure.WriteJSON(jsonFile, res)
}

// fill makes a trail with sealed segments that do not compress.
func fill(ctx context.Context, path string, w work) (*audit.Trail, error) {
	t, err := audit.Open(path, &audit.Options{StateDir: path + ".known", Durability: audit.Written, RotationInterval: audit.RotateNever, NoSocket: true, RetentionDays: 365})
	if err != nil {
		return nil, err
	}
	random := make([]byte, 12<<10)
	for range w.segments {
		for i := range w.entries {
			_, _ = crand.Read(random) // which never fails
			_, err := t.Record(ctx, audit.Event{EventType: "TOOL_USE", AgentID: "agent-1", Action: fmt.Sprintf("tool_use:%d", i),
				Inputs: audit.Of(map[string]any{"data": base64.StdEncoding.EncodeToString(random)})})
			if err != nil {
				return nil, errors.Join(err, t.Close())
			}
		}
		if _, err := t.Rotate(ctx); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return t, nil
}

// pair is what is compared.
type pair struct {
	ctx    context.Context
	server *s3test.Server
	trail  *audit.Trail
	files  []string
	client *minio.Client
}

func (p *pair) archive(n int) (time.Duration, error) {
	store, err := s3.Open(strings.Replace(p.server.URL("bench"), "s3://bench?", fmt.Sprintf("s3://bench/archive-%d?", n), 1), &s3.Options{Credentials: p.server.Credentials()})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	_, err = p.trail.Archive(p.ctx, store, nil)
	return time.Since(began), err
}

func (p *pair) upload(n int) (time.Duration, error) {
	began := time.Now()
	for _, file := range p.files {
		if err := p.put(n, file); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

func (p *pair) put(n int, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = p.client.PutObject(p.ctx, "bench", fmt.Sprintf("plain-%d/%s", n, filepath.Base(file)), f, fi.Size(), minio.PutObjectOptions{})
	return err
}

func rate(bytes int64, took time.Duration) float64 { return float64(bytes) / 1e6 / took.Seconds() }

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	n := len(all)
	return (all[n/2] + all[(n-1)/2]) / 2
}
