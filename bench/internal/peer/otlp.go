package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/otlp"
	"github.com/kaizen-audit/kaizen-audit/internal/otlp/load"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
)

// addressFile is where a process that listens says where.
const addressFile = "address"

// intake is serve --otlp: a durable trail, and what is sent becomes its entries.
func intake(dir string) error {
	t, err := audit.Open(filepath.Join(dir, "log.jsonl"), &audit.Options{Durability: audit.Durable, StateDir: filepath.Join(dir, "known"), MustHold: true})
	if err != nil {
		return err
	}
	s, err := otlp.Listen("127.0.0.1:0", t, &otlp.Options{Warn: func(err error) { fmt.Fprintln(os.Stderr, err) }})
	if err != nil {
		return errors.Join(err, t.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	err = os.WriteFile(filepath.Join(dir, addressFile), []byte(s.Addr().String()), 0o600)
	if err == nil {
		err = ready()
	}
	cancel()
	return errors.Join(err, <-ended, t.Close())
}

// sink reads requests, answers them with success, and keeps nothing.
func sink(dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })}
	go func() { _ = s.Serve(l) }()
	err = os.WriteFile(filepath.Join(dir, addressFile), []byte(l.Addr().String()), 0o600)
	if err == nil {
		err = ready()
	}
	return errors.Join(err, s.Close())
}

// OTLP is a durable trail in another process that takes OTLP over HTTP, in
// protobuf, from as many senders as there are writers; a request has batch spans.
func OTLP(writers, batch int) measure.Contestant {
	return measure.Contestant{Name: "serve --otlp", Open: func(dir string) (measure.Recorder, error) { return newSenders("intake", dir, writers, batch) }}
}

// HTTP is the same requests to a process that reads them and keeps nothing.
func HTTP(writers, batch int) measure.Contestant {
	return measure.Contestant{Name: "bare requests", Open: func(dir string) (measure.Recorder, error) { return newSenders("sink", dir, writers, batch) }}
}

type senders struct {
	child  *child
	url    string
	client *http.Client
	loads  []*load.Load
}

func newSenders(what, dir string, writers, batch int) (measure.Recorder, error) {
	c, err := start(what, dir)
	if err != nil {
		return nil, err
	}
	address, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s := &senders{child: c, url: "http://" + string(address) + "/v1/traces", client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: writers}}}
	first := load.New(batch)
	for range writers {
		s.loads = append(s.loads, first.Copy())
	}
	return s, nil
}

func (s *senders) Record(n int) error {
	r, err := s.client.Post(s.url, "application/x-protobuf", bytes.NewReader(s.loads[n%len(s.loads)].Body()))
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err == nil && (r.StatusCode != http.StatusOK || len(answer) > 0) {
		err = fmt.Errorf("status %d, %q", r.StatusCode, answer)
	}
	return err
}

func (s *senders) Close() error {
	s.client.CloseIdleConnections()
	return s.child.Close()
}
