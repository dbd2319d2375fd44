package socket_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// pieces gives data in pieces of the given sizes, again and again.
type pieces struct {
	data  []byte
	sizes []byte
	n     int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	size := 1 << 20
	if len(p.sizes) > 0 {
		size = 1 + int(p.sizes[p.n%len(p.sizes)])*37
		p.n++
	}
	n := copy(b, p.data[:min(size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

// FuzzLines compares the reader with a split of the whole text.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), []byte{1}, uint16(2), uint8(1))
	f.Add([]byte("a\r\n"), []byte{0, 255}, uint16(100), uint8(200))
	f.Add(bytes.Repeat([]byte("0123456789\n"), 30), []byte{}, uint16(10), uint8(255))
	f.Fuzz(func(t *testing.T, text, sizes []byte, max uint16, repeat uint8) {
		// Longer than the smallest buffers, or nothing ever grows.
		data := bytes.Repeat(text, 1+int(repeat))
		if len(data) > 1<<20 {
			return
		}
		limit := 1 + int(max)*8
		lines, errs, largest, balanced := socket.Lines(&pieces{data: data, sizes: sizes}, limit, 1<<30)
		want := strings.Split(string(data), "\n")
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		if len(lines) != len(want) {
			t.Fatalf("%d lines, want %d", len(lines), len(want))
		}
		for i, line := range lines {
			switch {
			case errs[i] == nil && (line != want[i] || len(line) > limit):
				t.Fatalf("line %d of %d bytes, want %d", i, len(line), len(want[i]))
			case errs[i] != nil && (errs[i] != socket.ErrLongLine || len(want[i]) <= limit):
				t.Fatalf("line %d of %d bytes: %v", i, len(want[i]), errs[i])
			}
		}
		if largest > socket.BatchBuffer && largest > limit+1 || !balanced {
			t.Fatalf("a buffer of %d bytes for lines of %d; given back: %v", largest, limit, balanced)
		}
		// With no memory to share, only lines that fit the own buffer are sure.
		lines, errs, largest, balanced = socket.Lines(&pieces{data: data, sizes: sizes}, limit, 0)
		if len(lines) != len(want) || largest > socket.OwnBuffer || !balanced {
			t.Fatalf("without memory: %d lines, want %d; a buffer of %d", len(lines), len(want), largest)
		}
		for i, err := range errs {
			if err == nil && lines[i] != want[i] || err == socket.ErrNoRoom && len(want[i]) < socket.OwnBuffer {
				t.Fatalf("without memory: line %d of %d bytes: %v", i, len(want[i]), err)
			}
		}
	})
}

// FuzzChunks: a body that net/http takes is taken alike, in whatever pieces it
// comes, and what ends well for us does so for net/http, which leaves what comes
// after the last chunk to others.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), uint8(1))
	f.Add([]byte("5;x=\"y\"\r\nhello\r\n00A \r\n0123456789\r\n0\r\nA: b\r\n\r\nrest"), uint8(3))
	f.Add([]byte("5\nhello\n0\n\n"), uint8(2))
	f.Add([]byte("zz\r\n"), uint8(9))
	f.Add([]byte("ffffffffffffffff\r\nx"), uint8(0))
	f.Add(append(socket.Chunk([]byte("of ours")), "0\r\n\r\n"...), uint8(4))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		var pieces [][]byte
		for rest := body; len(rest) > 0; {
			n := min(1+int(size), len(rest))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		got, err := socket.Chunks(pieces)
		whole, wholeErr := socket.Chunks([][]byte{body})
		if !bytes.Equal(got, whole) || err != wholeErr {
			t.Fatalf("in pieces of %d: %q, %v; whole: %q, %v", 1+size, got, err, whole, wholeErr)
		}
		want, wantErr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(body)))
		switch {
		case !bytes.HasPrefix(got, want) && !bytes.HasPrefix(want, got):
			t.Fatalf("%q, and net/http has %q", got, want)
		case wantErr == nil && !bytes.Equal(got, want):
			t.Fatalf("%q, %v; net/http has %q", got, err, want)
		case err == io.EOF && wantErr != nil:
			t.Fatalf("%q is taken; net/http says %v", body, wantErr)
		}
	})
}

// FuzzAnswer: what the fast parser takes, the slow one takes alike, and a
// receipt comes back as it was written.
func FuzzAnswer(f *testing.F) {
	r := entry.Receipt{Index: 42, EventID: entry.NewEventID(time.Now()), Digest: entry.Digest([]byte("x")), Durable: true}
	f.Add(string(r.AppendJSON(nil)))
	r.Durable = false
	f.Add(string(r.AppendJSON(nil)) + "\n")
	f.Add(`{"error":{"code":"busy","message":"too many connections"}}`)
	f.Add(`{"digest":"00","index":1}`)
	f.Add(`{"index":0,"event_id":"000000000000000000000000000000000000","digest":"000000000000000000000000000000000000000000000000000000000000000000","more":false}`)
	f.Fuzz(func(t *testing.T, line string) {
		fast, ok := socket.ParseReceipt([]byte(line))
		if !ok {
			_, _ = socket.ParseAnswer([]byte(line))
			return
		}
		slow, err := socket.ParseAnswer([]byte(" " + line)) // a space, which the fast one does not take
		if err != nil || slow != fast {
			t.Fatalf("%q: %+v, and slowly %+v, %v", line, fast, slow, err)
		}
		if again, err := socket.ParseAnswer(fast.AppendJSON(nil)); err != nil || again != fast {
			t.Fatalf("%q: %+v, and again %+v, %v", line, fast, again, err)
		}
	})
}

func FuzzQuery(f *testing.F) {
	f.Add("agent=a&event_type=A,B&meta=k=v&since=2025-10-26&limit=3&order=newest&audit=1&success=0")
	f.Add("cursor=9&until=2025-10-26T10:53:45Z")
	f.Fuzz(func(t *testing.T, raw string) {
		values, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		q, err := socket.ParseQuery(values)
		if err != nil {
			return
		}
		if err := q.Check(); err != nil || q.Limit < 0 || q.Order != query.Oldest && q.Order != query.Newest {
			t.Fatalf("%q gives %+v: %v", raw, q, err)
		}
	})
}

// FuzzRequest: whatever a peer sends, its connection ends, every event that
// was recorded was answered, and the next peer is served.
func FuzzRequest(f *testing.F) {
	h := newMemoryHolder()
	s := serve(f, h)
	f.Add([]byte("POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n36\r\n" + small + "\r\n0\r\n\r\n"))
	f.Add([]byte("GET /v1/entries?limit=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/x HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST /v1/readings HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h.mu.Lock()
		h.lines, h.by = nil, nil
		clear(h.keys)
		from := h.count
		h.mu.Unlock()
		conn := connect(t, s)
		defer conn.Close()
		go func() {
			_, _ = conn.Write(data)
			_ = conn.(*net.UnixConn).CloseWrite()
		}()
		answers, err := io.ReadAll(conn)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Fatalf("the connection does not end: %q", answers)
		}
		h.mu.Lock()
		recorded := h.count - from
		h.mu.Unlock()
		if err == nil && int64(bytes.Count(answers, []byte(`"event_id":"`))) < recorded {
			t.Fatalf("%d events were recorded; the answers: %q", recorded, answers)
		}
		next := connect(t, s)
		defer next.Close()
		fmt.Fprint(next, "GET /v1/trail HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(next), nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("the next peer gets %v, %v", resp, err)
		}
	})
}
