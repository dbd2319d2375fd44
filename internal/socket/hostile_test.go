package socket_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// works records an event as a peer that does nothing wrong.
func works(t *testing.T, s served, key string) {
	t.Helper()
	c, err := socket.Dial(t.Context(), s.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	if _, err := c.Record(t.Context(), event(key)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("an event took %v", took)
	}
}

// head begins a stream on a bare connection and reads the head of its answer.
func head(t *testing.T, conn net.Conn) *bufio.Reader {
	t.Helper()
	fmt.Fprint(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	return bufio.NewReader(resp.Body)
}

func chunk(conn net.Conn, data string) error {
	_, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(data), data)
	return err
}

const small = `{"event_type":"TOOL_USE","agent_id":"a","action":"b"}` + "\n"

// foreignRole is set in a child of the test that runs as another user: what it
// is to do in its working directory.
const foreignRole = "KAIZEN_AUDIT_TEST_FOREIGN"

func TestMain(m *testing.M) {
	switch os.Getenv(foreignRole) {
	case "":
		os.Exit(m.Run())
	case "ask":
		askForEverything()
	case "flood":
		connectTooOften()
	case "listen":
		if _, err := net.Listen("unix", socket.Name); err != nil {
			fmt.Println(err)
		}
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
}

const foreignUID, foreignGID = 54321, 54322

// foreignDir is a directory that other users can enter, with this test's
// program in it. t.TempDir's parents belong to one user alone.
func foreignDir(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "peer"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func foreign(t *testing.T, dir, role string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "peer"))
	cmd.Env, cmd.Dir = []string{foreignRole + "=" + role}, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: foreignUID, Gid: foreignGID}}
	return cmd
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// askForEverything prints the status and the body of each answer. It uses no
// client of ours, which would refuse a directory of others.
func askForEverything() {
	for _, req := range []struct{ method, path, body string }{
		{"GET", "/v1/trail", ""}, {"POST", "/v1/events", small}, {"POST", "/v1/readings", `{"event_type":"AUDIT_QUERY"}`},
		{"GET", "/v1/entries", ""}, {"GET", "/v1/report", ""}, {"GET", "/v1/users/u", ""}, {"POST", "/v1/pseudonyms", `{"user":"u"}`},
		{"POST", "/v1/erasures", `{"user":"u"}`}, {"POST", "/v1/prunes", `{}`}, {"POST", "/v1/rotations", `{}`},
		{"POST", "/v1/holds", `{}`}, {"POST", "/v1/holds/lifted", `{}`}, {"POST", "/v1/retention", `{}`},
	} {
		c, err := net.Dial("unix", socket.Name)
		if err != nil {
			fmt.Println(errors.Is(err, syscall.EACCES), err)
			return
		}
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", req.method, req.path, len(req.body), req.body)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		b, _ := io.ReadAll(resp.Body)
		fmt.Println(req.path, resp.StatusCode, strings.TrimSpace(string(b)))
		c.Close()
	}
}

// connectTooOften holds more connections than its user may have, prints what
// the last is told, and keeps them until its input ends.
func connectTooOften() {
	var last net.Conn
	for range socket.MaxForeign + 1 {
		var err error
		if last, err = net.Dial("unix", socket.Name); err != nil {
			fmt.Println(err)
			return
		}
		held = append(held, last)
	}
	fmt.Fprint(last, "GET /v1/trail HTTP/1.1\r\nHost: x\r\n\r\n")
	line, _ := bufio.NewReader(last).ReadString('\n')
	fmt.Print(line)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

var held []net.Conn

func TestAnotherUserMayOnlyRecord(t *testing.T) {
	dir := foreignDir(t)
	h := newMemoryHolder()
	s, err := socket.NewServer(h, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if out := output(t, foreign(t, dir, "ask")); !strings.HasPrefix(out, "true ") {
		t.Errorf("without a group another user gets in: %s", out)
	}
	l.Close()

	if l, err = socket.Listen(dir, strconv.Itoa(foreignGID)); err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Shutdown(t.Context())
	out := strings.Split(output(t, foreign(t, dir, "ask")), "\n")
	want := []string{
		`/v1/trail 200 {"protocol":1,`, `/v1/events 200 {"index":0,`, `/v1/readings 403 {"error":{"code":"denied",`,
		`/v1/entries 403 {"error":{"code":"denied",`, `/v1/report 403 {"error":{"code":"denied",`, `/v1/users/u 403 {"error":{"code":"denied",`,
		`/v1/pseudonyms 403 {"error":{"code":"denied",`, `/v1/erasures 403 {"error":{"code":"denied",`,
		`/v1/prunes 403 {"error":{"code":"denied",`, `/v1/rotations 403 {"error":{"code":"denied",`, `/v1/holds 403 {"error":{"code":"denied",`,
		`/v1/holds/lifted 403 {"error":{"code":"denied",`, `/v1/retention 403 {"error":{"code":"denied",`,
	}
	for i := range want {
		if len(out) != len(want) || !strings.HasPrefix(out[i], want[i]) {
			t.Fatalf("got  %q\nwant %q", out, want)
		}
	}
	if h.by[0].UID != foreignUID || h.by[0].PID == 0 || len(h.readings) != 0 {
		t.Errorf("recorded by %+v, %d readings", h.by[0], len(h.readings))
	}
}

func TestOtherUsersLeaveRoomForTheOwner(t *testing.T) {
	dir := foreignDir(t)
	s, err := socket.NewServer(newMemoryHolder(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(dir, strconv.Itoa(foreignGID))
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Shutdown(t.Context())
	cmd, said, end := start(t, foreign(t, dir, "flood"))
	line, err := said.ReadString('\n')
	if err != nil || !strings.Contains(line, " 503 ") {
		t.Errorf("one connection too many is told %q, %v", line, err)
	}
	works(t, served{s, dir}, "k")
	end.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// start starts a process, to be ended by closing its input.
func start(t *testing.T, cmd *exec.Cmd) (*exec.Cmd, *bufio.Reader, io.Closer) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out), in
}

func TestTheClientRefusesASocketOfAnotherUser(t *testing.T) {
	dir := foreignDir(t)
	cmd, said, end := start(t, foreign(t, dir, "listen"))
	if line, err := said.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	if _, err := socket.Dial(t.Context(), dir, ""); err == nil || !strings.Contains(err.Error(), "user 54321 listens there") {
		t.Errorf("error %v", err)
	}
	end.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestHalfRequestsHurtNobody(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h, func(s *socket.Server) { s.SetPatience(time.Minute, 200*time.Millisecond) })
	for _, half := range []string{
		"", "P", "POST /v1/events HTTP/1.1\r\n", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + `{"event_type"`,
		"POST /v1/readings HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
	} {
		fmt.Fprint(connect(t, s), half)
		gone := connect(t, s)
		fmt.Fprint(gone, half)
		gone.Close()
	}
	works(t, s, "k")

	// A line that has begun is not waited for, however it trickles.
	conn := connect(t, s)
	answers := head(t, conn)
	if err := chunk(conn, small+`{"event_type":`); err != nil {
		t.Fatal(err)
	}
	if line, err := answers.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"index":1,`) {
		t.Fatalf("%s, %v", line, err)
	}
	start := time.Now()
	go func() {
		for chunk(conn, " ") == nil {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if rest, err := io.ReadAll(answers); len(rest) != 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a slow line was waited for %v", took)
	}
}

// Every chunk has its own time, also where the next has always begun when one
// is recorded, as it has where a peer sends without a pause.
func TestAStreamOfHalvesGoesOn(t *testing.T) {
	s := serve(t, newMemoryHolder(), func(s *socket.Server) { s.SetPatience(time.Minute, 400*time.Millisecond) })
	conn := connect(t, s)
	answers := head(t, conn)
	const half = len(small) / 2
	head, _, _ := strings.Cut(string(socket.Chunk([]byte(small))), small)
	begin, end := head+small[:half], small[half:]+"\r\n"
	fmt.Fprint(conn, begin)
	for i := range 12 {
		time.Sleep(50 * time.Millisecond)
		fmt.Fprint(conn, end+begin)
		if line, err := answers.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"index":`) {
			t.Fatalf("after %d events: %q, %v", i, line, err)
		}
	}
	start := time.Now()
	if rest, err := io.ReadAll(answers); len(rest) != 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("half a chunk was waited for %v", took)
	}
}

func TestAnErrorDoesNotWaitForTheBody(t *testing.T) {
	s := serve(t, newMemoryHolder())
	for _, head := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
		for _, path := range []string{"/v1/nothing", "/v2/events", "/v1/events?durability=x", "/v1/readings?x=y"} {
			conn := connect(t, s)
			start := time.Now()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", path, head)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if took := time.Since(start); err != nil || took > 500*time.Millisecond || !bytes.HasPrefix(b, []byte(`{"error":`)) {
				t.Errorf("%s, %s: after %v %s, %v", path, head, took, b, err)
			}
		}
	}
	// A peer that writes all of it first finds its connection as it was.
	conn := connect(t, s)
	r := bufio.NewReader(conn)
	for range 3 {
		fmt.Fprintf(conn, "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n%s", strings.Repeat("x", 100000))
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 404 {
			t.Fatal(resp, err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Error(err)
		}
	}
}

func TestAGiantBodyTakesNoMemory(t *testing.T) {
	h := newMemoryHolder()
	h.keep = false
	s := serve(t, h)
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, c := range []struct {
		name, path, fill string
		answer           string
	}{
		{"one line", "/v1/events", "x", `{"error":{"code":"refused"`},
		{"a reading", "/v1/readings", "x", ""},
		{"where there is nothing", "/v1/nothing", "x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := connect(t, s)
			const size = 1 << 30
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", c.path, size)
			go func() {
				part := []byte(strings.Repeat(c.fill, 1<<20))
				for sent := 0; sent < size; sent += len(part) {
					if _, err := conn.Write(part); err != nil {
						return
					}
				}
			}()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			if !strings.HasPrefix(string(b), c.answer) || resp.StatusCode/100 == 5 {
				t.Errorf("%d %s", resp.StatusCode, b)
			}
			runtime.ReadMemStats(&now)
			if grown := int64(now.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
				t.Errorf("memory has grown by %d bytes", grown)
			}
			works(t, s, "k")
		})
	}
}

func TestALineThatIsTooLongIsRefusedAndTheStreamGoesOn(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h)
	long := func(n int) string { // an event of n bytes
		const rest = `{"event_type":"A","agent_id":"a","action":"b","purpose":""}`
		return rest[:len(rest)-2] + strings.Repeat("x", n-len(rest)) + rest[len(rest)-2:]
	}
	c := dial(t, s)
	for _, n := range []int{100, 16 << 10, 64<<10 - 1, 64 << 10, 256 << 10, 300 << 10, h.maxLine - 1, h.maxLine} {
		if _, err := c.Record(t.Context(), []byte(long(n))); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, n := range []int{h.maxLine + 1, h.maxLine + 2, 3 * h.maxLine} {
		if _, err := c.Record(t.Context(), []byte(long(n))); !errors.Is(err, &socket.Error{Code: socket.Refused}) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	res := c.RecordBatch(t.Context(), [][]byte{event("a"), []byte(long(2 * h.maxLine)), event("b"), []byte(long(h.maxLine)), event("c")})
	for i, r := range res {
		if (r.Err != nil) != (i == 1) {
			t.Errorf("event %d: %v", i, r.Err)
		}
	}
	// The last line of a body needs no end.
	conn := connect(t, s)
	fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", h.maxLine+1, long(h.maxLine+1))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(b), `{"error":{"code":"refused",`) {
		t.Errorf("%s, %v", b, err)
	}
	if h.refused != 5 {
		t.Errorf("%d refusals were counted, want 5", h.refused)
	}
}

func TestLongLinesShareTheirMemory(t *testing.T) {
	h := newMemoryHolder()
	h.maxLine = 16 << 20
	s := serve(t, h)
	all := s.LongLinesLeft()
	// Eight lines of 15 MiB, none of them ended, want more than there is.
	part := strings.Repeat("x", 1<<20)
	var conns []net.Conn
	var answers []*bufio.Reader
	for range 8 {
		conn := connect(t, s)
		answers = append(answers, head(t, conn))
		for range 15 {
			if err := chunk(conn, part); err != nil {
				t.Fatal(err)
			}
		}
		conns = append(conns, conn)
	}
	works(t, s, "k")
	busy := 0
	for i, conn := range conns {
		if err := chunk(conn, "\n"+small); err != nil {
			t.Fatal(err)
		}
		line, err := answers[i].ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, `{"error":{"code":"busy",`) {
			busy++
		} else if !strings.HasPrefix(line, `{"error":{"code":"refused",`) {
			t.Errorf("answer %s", line)
		}
		if line, err := answers[i].ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"index":`) {
			t.Errorf("after it: %s, %v", line, err)
		}
	}
	if busy == 0 || busy == len(conns) {
		t.Errorf("%d of %d lines found no memory", busy, len(conns))
	}
	for _, conn := range conns {
		conn.Close()
	}
	for end := time.Now().Add(5 * time.Second); s.LongLinesLeft() != all; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes were not given back", all-s.LongLinesLeft())
		}
	}
}

func TestIdleConnectionsBesideWorkingOnes(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 1000 {
		conn := connect(t, s)
		if i%2 == 0 {
			head(t, conn)
			if err := chunk(conn, small); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := dial(t, s)
	for i := range 200 {
		if _, err := c.Record(t.Context(), event(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&now)
	if grown := int64(now.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
		t.Errorf("1000 connections hold %d bytes", grown)
	}
}

func TestOneConnectionTooManyIsToldSo(t *testing.T) {
	s := serve(t, newMemoryHolder())
	conns := make([]net.Conn, socket.MaxConns)
	for i := range conns {
		conns[i] = connect(t, s)
	}
	for end := time.Now().Add(5 * time.Second); s.Conns() < len(conns); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections", s.Conns())
		}
	}
	status, _, body := get(t, s, "GET", "/v1/trail", "")
	if status != 503 || !strings.HasPrefix(body, `{"error":{"code":"busy",`) {
		t.Errorf("%d %s", status, body)
	}
	if _, err := socket.Dial(t.Context(), s.dir, ""); !errors.Is(err, &socket.Error{Code: socket.Busy}) {
		t.Errorf("error %v", err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	for end := time.Now().Add(5 * time.Second); s.Conns() > 100; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are left", s.Conns())
		}
	}
	works(t, s, "k")
}

func TestAPeerThatNeverReadsBlocksOnlyItself(t *testing.T) {
	h := newMemoryHolder()
	h.keep = false
	s := serve(t, h)
	var stuck sync.WaitGroup
	for range 8 {
		conn := connect(t, s)
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		stuck.Go(func() {
			fmt.Fprint(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
			many := strings.Repeat(small, 1000)
			for n := 0; ; n++ {
				if err := chunk(conn, many); err != nil {
					if n > 200 { // 10 MB
						t.Errorf("%d events were taken without their answers being read", 1000*n)
					}
					return
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	for i := range 20 {
		works(t, s, strconv.Itoa(i))
	}
	stuck.Wait()
}

func TestGarbageEndsItsOwnConnection(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h)
	ok := fmt.Sprintf("POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(small), small)
	for _, c := range []struct {
		name, send string
		recorded   int
	}{
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
		{"zeros", strings.Repeat("\x00", 5000), 0},
		{"a head that is too long", "GET /v1/trail HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10), 0},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
		{"HTTP/9", "GET /v1/trail HTTP/9.9\r\n\r\n", 0},
		{"two lengths", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 0},
		{"pipelined behind a request", ok + "garbage\r\n\r\n" + ok, 1},
		{"two requests, pipelined", ok + ok + "\x00", 2},
		{"a chunk that is none", "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n36\r\n" + small + "\r\nzz\r\n" + ok, 1},
		{"a chunk of half the world", "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + `{"event_type"`, 0},
		{"a line of no JSON", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\xff\xfe\n{", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.mu.Lock()
			before := len(h.lines)
			h.mu.Unlock()
			conn := connect(t, s)
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Log(err) // it was closed in the middle
			}
			_ = conn.(*net.UnixConn).CloseWrite()
			answers, _ := io.ReadAll(conn)
			h.mu.Lock()
			recorded := len(h.lines) - before
			h.mu.Unlock()
			if recorded != c.recorded {
				t.Errorf("%d events were recorded, want %d; the answers: %s", recorded, c.recorded, answers)
			}
			if n := bytes.Count(answers, []byte(`{"index":`)); n != recorded {
				t.Errorf("%d receipts for %d events: %s", n, recorded, answers)
			}
			works(t, s, c.name)
		})
	}
}
