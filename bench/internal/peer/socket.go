package peer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// servesEnv makes a program that calls Serve at its start one of the processes
// below: "hold LOG", "echo SOCKET", "intake DIR" or "sink DIR".
const servesEnv = "KAIZEN_BENCH_SERVES"

// Serve runs what a parent process has asked for until standard input ends, and
// then does not return. Otherwise it does nothing.
func Serve() {
	what, path, ok := strings.Cut(os.Getenv(servesEnv), " ")
	if !ok {
		return
	}
	err := errors.New("unknown: " + what)
	switch what {
	case "hold":
		err = hold(path)
	case "echo":
		err = echo(path)
	case "intake":
		err = intake(path)
	case "sink":
		err = sink(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ready tells the parent that it may begin, and waits until it has ended.
func ready() error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// hold holds a durable trail for other processes.
func hold(log string) error {
	t, err := audit.Open(log, &audit.Options{Durability: audit.Durable, StateDir: filepath.Join(filepath.Dir(log), "known")})
	if err != nil {
		return err
	}
	return errors.Join(ready(), t.Close())
}

// aReceipt is as long as the answer to an event.
var aReceipt = append(entry.Receipt{Index: 1_000_000, EventID: entry.NewEventID(time.Unix(0, 0)), Durable: true}.AppendJSON(nil), '\n')

// echo answers each line with a receipt, and records nothing: what the round
// trips alone cost.
func echo(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				in, out := bufio.NewReaderSize(c, 256<<10), bufio.NewWriterSize(c, 256<<10)
				for {
					if _, err := in.ReadSlice('\n'); err != nil {
						return
					}
					_, _ = out.Write(aReceipt)
					if in.Buffered() == 0 {
						_ = out.Flush()
					}
				}
			}()
		}
	}()
	return ready()
}

// child is a process that serves.
type child struct {
	cmd *exec.Cmd
	in  io.Closer
}

func start(what, path string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), servesEnv+"="+what+" "+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd, in}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("%s: it said %q", what, line), err, c.Close())
	}
	return c, nil
}

// Close ends the process and waits for it.
func (c *child) Close() error { return errors.Join(c.in.Close(), c.cmd.Wait()) }

// keyed are the pool's events as a client sends them, each with a key of its
// own; a Record takes batch of them.
type keyed struct {
	texts [][]byte // up to the key
	batch int
	run   string
}

func newKeyed(p *workload.Pool, batch int) (*keyed, error) {
	k := &keyed{batch: batch, run: strconv.FormatInt(time.Now().UnixNano(), 36)}
	for n := range p.Len() {
		e := p.Event(n)
		text, err := json.Marshal(map[string]any{
			"event_type": e.EventType, "agent_id": e.AgentID, "trace_id": e.TraceID, "action": e.Action, "inputs": e.Inputs,
			"outputs": e.Outputs, "duration_ms": e.DurationMS, "success": e.Success, "metadata": e.Metadata,
		})
		if err != nil {
			return nil, err
		}
		k.texts = append(k.texts, append(bytes.TrimSuffix(text, []byte("}")), `,"idempotency_key":"`...))
	}
	return k, nil
}

func (k *keyed) key(n, i int) string { return k.run + "." + strconv.Itoa(n*k.batch+i) }

func (k *keyed) append(dst []byte, n, i int) []byte {
	return append(append(append(dst, k.texts[(n*k.batch+i)%len(k.texts)]...), k.key(n, i)...), `"}`...)
}

// KeyedTrail is a durable trail in this process, each event with a key.
func KeyedTrail(p *workload.Pool, batch int) measure.Contestant {
	return measure.Contestant{Name: "library in this process", Open: func(dir string) (measure.Recorder, error) {
		k, err := newKeyed(p, batch)
		if err != nil {
			return nil, err
		}
		t, err := audit.Open(filepath.Join(dir, "log.jsonl"), &audit.Options{Durability: audit.Durable, StateDir: filepath.Join(dir, "known")})
		return &keyedTrail{k, p, t}, err
	}}
}

type keyedTrail struct {
	*keyed
	pool  *workload.Pool
	trail *audit.Trail
}

func (r *keyedTrail) Record(n int) error {
	event := func(i int) audit.Event {
		ev := r.pool.Event(n*r.batch + i).Audit()
		ev.IdempotencyKey = r.key(n, i)
		return ev
	}
	if r.batch == 1 {
		_, err := r.trail.Record(context.Background(), event(0))
		return err
	}
	events := make([]audit.Event, r.batch)
	for i := range events {
		events[i] = event(i)
	}
	_, err := r.trail.RecordBatch(context.Background(), events)
	return err
}

func (r *keyedTrail) Close() error { return r.trail.Close() }

// Socket is a durable trail that another process holds, each event with a key,
// over as many connections as there are writers.
func Socket(p *workload.Pool, writers, batch int) measure.Contestant {
	return measure.Contestant{Name: "through the holder's socket", Open: func(dir string) (measure.Recorder, error) {
		k, err := newKeyed(p, batch)
		if err != nil {
			return nil, err
		}
		c, err := start("hold", filepath.Join(dir, "log.jsonl"))
		if err != nil {
			return nil, err
		}
		r := &clients{keyed: k, child: c}
		for range writers {
			client, err := socket.Dial(context.Background(), filepath.Join(dir, "log.trail"), "durable")
			if err != nil {
				return nil, errors.Join(err, r.Close())
			}
			r.clients = append(r.clients, client)
		}
		return r, nil
	}}
}

type clients struct {
	*keyed
	child   *child
	clients []*socket.Client
}

func (r *clients) Record(n int) error {
	c := r.clients[n%len(r.clients)]
	if r.batch == 1 {
		_, err := c.Record(context.Background(), r.append(nil, n, 0))
		return err
	}
	events := make([][]byte, r.batch)
	for i := range events {
		events[i] = r.append(nil, n, i)
	}
	for _, res := range c.RecordBatch(context.Background(), events) {
		if res.Err != nil {
			return res.Err
		}
	}
	return nil
}

func (r *clients) Close() error {
	var errs []error
	for _, c := range r.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, r.child.Close())...)
}

// RoundTrips are the same bytes over as many connections to a process that
// answers and records nothing.
func RoundTrips(p *workload.Pool, writers, batch int) measure.Contestant {
	return measure.Contestant{Name: "bare round trips", Open: func(dir string) (measure.Recorder, error) {
		k, err := newKeyed(p, batch)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "sock")
		c, err := start("echo", path)
		if err != nil {
			return nil, err
		}
		r := &roundTrips{keyed: k, child: c}
		for range writers {
			conn, err := net.Dial("unix", path)
			if err != nil {
				return nil, errors.Join(err, r.Close())
			}
			r.conns = append(r.conns, &lineConn{Conn: conn, in: bufio.NewReaderSize(conn, 64<<10)})
		}
		return r, nil
	}}
}

type roundTrips struct {
	*keyed
	child *child
	conns []*lineConn
}

type lineConn struct {
	net.Conn
	in  *bufio.Reader
	out []byte
}

func (r *roundTrips) Record(n int) error {
	c := r.conns[n%len(r.conns)]
	c.out = c.out[:0]
	for i := range r.batch {
		c.out = append(r.append(c.out, n, i), '\n')
	}
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	for range r.batch {
		if _, err := c.in.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return nil
}

func (r *roundTrips) Close() error {
	var errs []error
	for _, c := range r.conns {
		errs = append(errs, c.Conn.Close())
	}
	return errors.Join(append(errs, r.child.Close())...)
}
