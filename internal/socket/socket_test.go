package socket_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

func TestSocketIsOpenToItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	l, err := socket.Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(filepath.Join(dir, socket.Name))
	if err != nil {
		t.Fatal(err)
	}
	if want := fs.ModeSocket | 0o600; fi.Mode() != want {
		t.Errorf("mode %v, want %v", fi.Mode(), want)
	}
	if _, err := os.Lstat(filepath.Join(dir, socket.MakingDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the socket was made in is left: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, socket.Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a closed listener leaves its file: %v", err)
	}
}

func TestSocketIsOpenToItsGroup(t *testing.T) {
	dir := t.TempDir()
	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 4242
	}
	l, err := socket.Listen(dir, fmt.Sprint(gid))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fi, err := os.Lstat(filepath.Join(dir, socket.Name))
	if err != nil {
		t.Fatal(err)
	}
	if got := int(fi.Sys().(*syscall.Stat_t).Gid); fi.Mode().Perm() != 0o660 || got != gid {
		t.Errorf("mode %v and group %d, want 0660 and %d", fi.Mode().Perm(), got, gid)
	}
	if _, err := socket.Listen(t.TempDir(), "no-such-group-here"); err == nil {
		t.Error("a group that does not exist is taken")
	}
}

func TestListenReplacesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	if _, err := socket.Listen(dir, ""); err != nil { // never closed: its process was killed
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, socket.MakingDir), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()

	if err := os.WriteFile(filepath.Join(dir, socket.Name), []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Listen(dir, ""); err == nil {
		t.Error("a file that is no socket was replaced")
	}
}

func TestClosingAListenerKeepsTheNextOnesSocket(t *testing.T) {
	dir := t.TempDir()
	first, err := socket.Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := socket.Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, socket.Name)); err != nil {
		t.Error(err)
	}
}

func TestPathLongerThanAnAddress(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < 200 {
		dir = filepath.Join(dir, strings.Repeat("x", 40))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := socket.NewServer(newMemoryHolder(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(dir, "")
	if runtime.GOOS != "linux" {
		if err == nil || !strings.Contains(err.Error(), "shorter") {
			t.Fatalf("error %v does not say what to do", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Shutdown(t.Context())
	c, err := socket.Dial(t.Context(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Record(t.Context(), event("k")); err != nil {
		t.Error(err)
	}
}

func TestRecordGivesTheReceiptOfTheLine(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h)
	c := dial(t, s)
	for i := range 3 {
		r, err := c.Record(t.Context(), event(fmt.Sprint("k", i)))
		if err != nil {
			t.Fatal(err)
		}
		if r.Index != int64(i) || r.Durable || r.EventID == "" || r.Digest == ([32]byte{}) {
			t.Errorf("receipt %+v", r)
		}
	}
	again, err := c.Record(t.Context(), event("k1"))
	if err != nil || again.Index != 1 {
		t.Errorf("the same key again gives %+v, %v", again, err)
	}
	if by := h.by[0]; by.UID != os.Geteuid() || by.PID != os.Getpid() {
		t.Errorf("recorded by %+v, want uid %d and pid %d", by, os.Geteuid(), os.Getpid())
	}
	want := fmt.Sprintf(`"recorded_by":{"principal":"uid:%d","pid":%d,"via":"socket"}`, os.Geteuid(), os.Getpid())
	if !bytes.Contains(h.lines[0], []byte(want)) {
		t.Errorf("%s has no %s", h.lines[0], want)
	}
}

func TestConcurrentCallersGetTheirOwnAnswers(t *testing.T) {
	h := newMemoryHolder()
	c := dial(t, serve(t, h))
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 50 {
				key := fmt.Sprintf("%d-%d", w, i)
				var got int64
				if i%10 == 0 {
					res := c.RecordBatch(t.Context(), [][]byte{event(key + "a"), []byte(`{"nonsense":1}`), event(key)})
					if res[0].Err != nil || !errors.Is(res[1].Err, &socket.Error{Code: socket.Refused}) || res[2].Err != nil {
						t.Errorf("batch: %v", res)
						return
					}
					got = res[2].Receipt.Index
				} else {
					r, err := c.Record(t.Context(), event(key))
					if err != nil {
						t.Error(err)
						return
					}
					got = r.Index
				}
				h.mu.Lock()
				line := h.lines[got]
				h.mu.Unlock()
				if !bytes.Contains(line, []byte(`"idempotency_key":"`+key+`"`)) {
					t.Errorf("the receipt of %s is that of %s", key, line)
				}
			}
		})
	}
	wg.Wait()
	if h.refused != 32*5 {
		t.Errorf("%d refusals were counted, want %d", h.refused, 32*5)
	}
}

// Events that wait while one is being recorded share commits: as many as come in
// one read of 4 KiB, so that 40 of them take four at most.
func TestEventsThatWaitShareCommits(t *testing.T) {
	h := newMemoryHolder()
	h.gate, h.reached = make(chan struct{}), make(chan struct{}, 64)
	c := dial(t, serve(t, h))
	var wg sync.WaitGroup
	record := func(key string) {
		wg.Go(func() {
			if _, err := c.Record(t.Context(), event(key)); err != nil {
				t.Error(err)
			}
		})
	}
	record("the one that the others wait for")
	<-h.reached
	for i := range 40 {
		record(fmt.Sprint(i))
	}
	for deadline := time.Now().Add(time.Minute); c.Unanswered() < 41 || c.Unwritten(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 41 events were sent", c.Unanswered())
		}
	}
	close(h.gate)
	wg.Wait()
	if n := len(h.reached); n > 4 {
		t.Errorf("40 events took %d commits", n)
	}
}

func TestAContextBoundsTheWaitAndNotTheFate(t *testing.T) {
	h := newMemoryHolder()
	h.gate = make(chan struct{})
	c := dial(t, serve(t, h))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Record(ctx, event("a"))
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, &socket.Error{Code: socket.Unknown}) {
		t.Errorf("error %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, res := range c.RecordBatch(ctx, [][]byte{event("b"), event("c")}) {
		if !errors.Is(res.Err, &socket.Error{Code: socket.Unknown}) {
			t.Errorf("error %v", res.Err)
		}
	}
	close(h.gate)
	r, err := c.Record(t.Context(), event("a"))
	if err != nil || r.Index != 0 {
		t.Errorf("the retry gives %+v, %v", r, err)
	}
	if r, err = c.Record(t.Context(), event("d")); err != nil || r.Index != 3 {
		t.Errorf("answers are mixed up: %+v, %v", r, err)
	}
}

func TestABrokenConnectionIsErrGoneAndTheNextCallGoesOn(t *testing.T) {
	h := newMemoryHolder()
	h.gate = make(chan struct{})
	s := serve(t, h)
	c := dial(t, s)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Record(t.Context(), event("a"))
		failed <- err
	}()
	time.Sleep(50 * time.Millisecond)
	close(h.gate)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	h.gate = make(chan struct{})
	go func() {
		_, err := c.Record(t.Context(), event("b"))
		failed <- err
	}()
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) { // at once, as a kill does
		t.Errorf("shutdown: %v", err)
	}
	if err := <-failed; !errors.Is(err, socket.ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
	close(h.gate)

	next, err := socket.NewServer(h, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Record(t.Context(), event("b")); !errors.Is(err, socket.ErrGone) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nobody listens, and the error is %v", err)
	}
	l, err := socket.Listen(s.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	go next.Serve(l)
	defer next.Shutdown(t.Context())
	r, err := c.Record(t.Context(), event("b"))
	if err != nil || r.Index != 1 {
		t.Errorf("at the next holder: %+v, %v", r, err)
	}
}

func TestShutdownAnswersWhatWasAcceptedAndClosesTheRest(t *testing.T) {
	h := newMemoryHolder()
	h.gate = make(chan struct{})
	s := serve(t, h)
	conn := connect(t, s)
	// The second batch is being recorded when it stops, and more than a batch
	// has been read by then.
	const n = 3000
	body := bytes.Repeat(append([]byte(`{"event_type":"A","agent_id":"a","action":"b"}`), '\n'), n)
	fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(body), body)
	idle := connect(t, s)
	fmt.Fprint(idle, "GET /v1/trail HTTP/1.1\r\nHost: x\r\n")
	h.gate <- struct{}{}
	time.Sleep(100 * time.Millisecond)
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(t.Context()) }()
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Lstat(filepath.Join(s.dir, socket.Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("shutdown did not wait for the answers: %v", err)
	default:
	}
	close(h.gate)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("the answers are cut off: %v", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(all), "\n"), "\n")
	receipts, closed := 0, 0
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, `{"index":`) && closed == 0:
			receipts++
		case strings.HasPrefix(l, `{"error":{"code":"closed",`):
			closed++
		default:
			t.Fatalf("answer %s", l)
		}
	}
	if receipts == 0 || receipts != len(h.lines) || closed == 0 {
		t.Errorf("%d receipts and %d closed for %d recorded lines", receipts, closed, len(h.lines))
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// get asks one path by a client that is not ours.
func get(t *testing.T, s served, method, path, body string) (int, http.Header, string) {
	t.Helper()
	conn := connect(t, s)
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func TestEveryPathAnswersAsDocumented(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h)
	ev := `{"event_type":"TOOL_USE","agent_id":"a","action":"b"}`
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/trail", "", 200, `{"protocol":1,"origin":"example.com/memory","vkey":"none","path":"/m.jsonl","version":"test","pid":1,"durability":"written","max_line":1048576,"size":0,"covered":0,"retention_days":0,"rotation_interval":"","access_control":false,"allowed_roles":""}`},
		{"POST", "/v1/events", ev, 200, `{"index":0,"event_id":`},
		{"POST", "/v1/events", ev + "\n\r\n \n" + ev + "\r\n", 200, `{"index":1,"event_id":`},
		{"POST", "/v1/events?durability=queued", ev, 200, `"durable":false}`},
		{"POST", "/v1/events?durability=durable", ev, 200, `"}`},
		{"POST", "/v1/events?durability=x", ev, 400, `"code":"protocol"`},
		{"POST", "/v1/events", `{"event_type":"AUDIT_SEAL","agent_id":"a","action":"b"}`, 200, `{"error":{"code":"refused"`},
		{"POST", "/v1/events", "", 200, ""},
		{"POST", "/v1/readings", `{"event_type":"AUDIT_QUERY","action":"query","inputs":{"agent":"a"},"outputs":{"size":4}}`, 200, `{"index":5,`},
		{"POST", "/v1/readings", `{"event_type":"AUDIT_SEAL"}`, 400, `"code":"refused"`},
		{"POST", "/v1/readings", `x`, 400, `"code":"protocol"`},
		{"POST", "/v1/pseudonyms", `{"user":"user123"}`, 200, "{\"user_id_hash\":\"pseudonym of user123\"}\n"},
		{"POST", "/v1/pseudonyms", `{"user":""}`, 400, `"code":"refused"`},
		{"POST", "/v1/pseudonyms", `"user123"`, 400, `the body is not a user as JSON`},
		{"POST", "/v1/pseudonyms", `{"user":"\ud800"}`, 400, `the body is not a user as JSON`},
		{"POST", "/v1/pseudonyms", `{"user":7}`, 400, `the body is not a user as JSON`},
		{"POST", "/v1/pseudonyms", `{"user":"a","user":"b"}`, 400, `the body is not a user as JSON`},
		{"POST", "/v1/pseudonyms?user=user123", `{"user":"user123"}`, 400, `"code":"protocol"`},
		{"GET", "/v1/pseudonyms", "", 400, `this path takes POST`},
		{"POST", "/v1/erasures", `{"user":"user123","options":{"reason":"x"}}`, 200, `"options":{"reason":"x"},"user":"user123"}`},
		{"POST", "/v1/erasures", `{"user":"held"}`, 409, `"code":"held"`},
		{"POST", "/v1/erasures", `{"user":"a","user":"b"}`, 400, `the body is not a user as JSON`},
		{"POST", "/v1/erasures", `[]`, 400, `the body is not a user as JSON`},
		{"GET", "/v1/erasures", "", 400, `this path takes POST`},
		{"POST", "/v1/prunes", `{"dry_run":true}`, 200, `"asked":{"dry_run":true}`},
		{"POST", "/v1/prunes", `{"dry_run":true,"dry_run":false}`, 400, `the body is not an object as JSON`},
		{"POST", "/v1/prunes", `{"wrong":true}`, 400, `{"error":{"code":"option","message":"it is wrong","hint":"say \"right\""}}`},
		{"POST", "/v1/prunes", `[]`, 400, `the body is not an object as JSON`},
		{"POST", "/v1/prunes", "", 400, `the body is not an object as JSON`},
		{"POST", "/v1/prunes?dry_run=true", `{}`, 400, `"code":"protocol"`},
		{"GET", "/v1/prunes", "", 400, `this path takes POST`},
		{"POST", "/v1/rotations", `{}`, 200, `"did":"rotate"`},
		{"POST", "/v1/holds", ` {"user":"u"}`, 200, `"did":"add hold"`},
		{"POST", "/v1/holds/lifted", `{"hold":"h"}`, 200, `"did":"lift hold"`},
		{"POST", "/v1/retention", `{"days":9}`, 200, `"did":"set retention"`},
		{"GET", "/v1/entries?agent=b", "", 200, "{\"end\":{\"count\":0,\"cursor\":\"\"}}\n"},
		{"GET", "/v1/entries?agent=a&event_type=TOOL_USE,X&meta=a=b&since=2025-10-26&until=2025-10-26T10:53:45Z&limit=9&order=newest&audit=1&success=true&cursor=9", "", 200, `{"end":{"count":5,"cursor":"4"}}`},
		{"GET", "/v1/entries?agnet=a", "", 400, `"code":"protocol"`},
		{"GET", "/v1/entries?agent=", "", 400, `agent is empty`},
		{"GET", "/v1/entries?since=yesterday", "", 400, `since must be`},
		{"GET", "/v1/entries?limit=0", "", 400, `limit`},
		{"GET", "/v1/report", "", 200, "a report as text of 5 entries\n"},
		{"GET", "/v1/report?format=json", "", 200, "a report as json of 5 entries\n"},
		{"GET", "/v1/report?format=pdf", "", 400, `"code":"protocol"`},
		{"GET", "/v1/users/user%2F1%20x", "", 200, "[\"user/1 x\"]\n"},
		{"GET", "/v1/users/nobody", "", 404, `{"error":{"code":"not_found","message":"no such user"}}`},
		{"GET", "/v1/users/", "", 404, `"code":"not_found"`},
		{"GET", "/v1/nothing", "", 404, `"code":"not_found"`},
		{"GET", "/", "", 404, `"code":"not_found"`},
		{"DELETE", "/v1/events", "", 400, `this path takes POST`},
		{"GET", "/v2/trail", "", 404, `{"error":{"code":"protocol","message":"this holder speaks version 1 of the protocol","supported":[1]}}`},
		{"POST", "/v0/events", ev, 404, `"supported":[1]`},
		{"GET", "/v10", "", 404, `"supported":[1]`},
	} {
		status, header, body := get(t, s, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) || c.want == "" && body != "" {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, status, body, c.status, c.want)
		}
		if v := header.Get("Kaizen-Audit-Protocol"); v != "1" {
			t.Errorf("%s %s: protocol %q", c.method, c.path, v)
		}
		for line := range strings.Lines(body) {
			if c.path != "/v1/report" && !strings.HasPrefix(c.path, "/v1/report?") && !json.Valid([]byte(line)) {
				t.Errorf("%s %s: %q is no JSON", c.method, c.path, line)
			}
		}
	}
	if h.readings[0].Action != "query" || string(h.readings[0].Inputs) != `{"agent":"a"}` {
		t.Errorf("reading %+v", h.readings[0])
	}
}

func TestEntriesAreTheLinesExactlyAsRecorded(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h)
	c := dial(t, s)
	for i := range 500 {
		if _, err := c.Record(t.Context(), event(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	_, _, body := get(t, s, "GET", "/v1/entries", "")
	lines := strings.Split(body, "\n")
	if len(lines) != 502 || lines[500] != `{"end":{"count":500,"cursor":"499"}}` {
		t.Fatalf("%d lines, the last is %s", len(lines), lines[len(lines)-2])
	}
	for i, line := range lines[:500] {
		if !strings.HasSuffix(line, `","entry":`+string(h.lines[i])+"}") || !strings.HasPrefix(line, fmt.Sprintf(`{"index":%d,"digest":"`, i)) {
			t.Fatalf("entry %d is %s", i, line)
		}
	}
}

func TestPseudonymOfTheClient(t *testing.T) {
	c := dial(t, serve(t, newMemoryHolder()))
	if p, err := c.Pseudonym(t.Context(), "user123"); err != nil || p != "pseudonym of user123" {
		t.Errorf("%q, %v", p, err)
	}
	if p, err := c.Pseudonym(t.Context(), ""); p != "" || !errors.Is(err, &socket.Error{Code: socket.Refused}) {
		t.Errorf("%q, %v", p, err)
	}
}

func TestEraseOfTheClient(t *testing.T) {
	c := dial(t, serve(t, newMemoryHolder()))
	if b, err := c.Do(t.Context(), socket.Erasures, []byte(`{"user":"user123","options":{"dry_run":true}}`)); err != nil || !strings.Contains(string(b), `"options":{"dry_run":true}`) {
		t.Errorf("%s, %v", b, err)
	}
	if b, err := c.Do(t.Context(), socket.Erasures, []byte(`{"user":"held"}`)); len(b) > 0 || !errors.Is(err, &socket.Error{Code: socket.Held}) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestCallsOfTheClient(t *testing.T) {
	s := serve(t, newMemoryHolder(), func(s *socket.Server) { s.SetSmallTime(50 * time.Millisecond) })
	c := dial(t, s)
	for call, did := range map[socket.Call]string{socket.Prunes: "prune", socket.Rotations: "rotate", socket.Holds: "add hold", socket.LiftedHolds: "lift hold", socket.Retention: "set retention"} {
		want := fmt.Sprintf(`{"asked":{"slow":false},"by":"uid:%d","did":%q}`, os.Geteuid(), did)
		if b, err := c.Do(t.Context(), call, []byte(`{"slow":false}`)); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s: %s, %v", call, b, err)
		}
	}
	// What is done may take longer than a request may take to come.
	if b, err := c.Do(t.Context(), socket.Prunes, []byte(`{"slow":true}`)); err != nil {
		t.Errorf("%s, %v", b, err)
	}
	_, err := c.Do(t.Context(), socket.Prunes, []byte(`{"wrong":true}`))
	if e, ok := errors.AsType[*socket.Error](err); !ok || e.Code != socket.Option || e.Message != "it is wrong" || e.Hint != `say "right"` {
		t.Errorf("%#v", err)
	}
}

func TestInfoAndReadingsOfTheClient(t *testing.T) {
	h := newMemoryHolder()
	c := dial(t, serve(t, h))
	info, err := c.Info(t.Context())
	if err != nil || info.Protocol != 1 || info.Origin != "example.com/memory" || info.MaxLine != h.maxLine {
		t.Errorf("%+v, %v", info, err)
	}
	r, err := c.NoteReading(t.Context(), socket.Reading{EventType: "AUDIT_QUERY", Action: "query"})
	if err != nil || r.EventID == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err = c.NoteReading(t.Context(), socket.Reading{EventType: "AUDIT_SEAL"}); !errors.Is(err, &socket.Error{Code: socket.Refused}) {
		t.Errorf("error %v", err)
	}
}

func TestTheClientRefusesWhatIsNoLine(t *testing.T) {
	c := dial(t, serve(t, newMemoryHolder()))
	for _, ev := range []string{"", "  ", "{\n}", "{}\n{}"} {
		if _, err := c.Record(t.Context(), []byte(ev)); !errors.Is(err, &socket.Error{Code: socket.Refused}) {
			t.Errorf("%q: %v", ev, err)
		}
	}
}

func TestDurabilityOfAClient(t *testing.T) {
	s := serve(t, newMemoryHolder())
	for _, d := range []socket.Durability{"durable", "written", ""} {
		c, err := socket.Dial(t.Context(), s.dir, d)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if r, err := c.Record(t.Context(), event("of "+string(d))); err != nil || r.Durable != (d == "durable") {
			t.Errorf("%q: %+v, %v", d, r, err)
		}
	}
	c, err := socket.Dial(t.Context(), s.dir, "somehow")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Record(t.Context(), event("a")); !errors.Is(err, &socket.Error{Code: socket.Protocol}) {
		t.Errorf("a durability that does not exist: %v", err)
	}
}

func TestIdleCountsFromTheLastConnection(t *testing.T) {
	s := serve(t, newMemoryHolder())
	c := dial(t, s)
	if _, err := c.Record(t.Context(), event("a")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	if d := s.Idle(); d != 0 {
		t.Errorf("idle for %v while a client is connected", d)
	}
	c.Close()
	for end := time.Now().Add(5 * time.Second); s.Idle() < 20*time.Millisecond; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never idle")
		}
	}
}

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	if _, err := socket.Dial(t.Context(), dir, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := socket.Listen(dir, ""); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "left")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(left, socket.Name)}); err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
	if _, err := socket.Dial(t.Context(), left, ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a socket that a crash left: %v", err)
	}
}

func TestAnIdleStreamEndsAndTheClientGoesOn(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h, func(s *socket.Server) { s.SetPatience(50*time.Millisecond, 50*time.Millisecond) })
	c := dial(t, s)
	for i := range 3 {
		if r, err := c.Record(t.Context(), event(fmt.Sprint(i))); err != nil || r.Index != int64(i) {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func TestCurlStreamsEvents(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	h := newMemoryHolder()
	s := serve(t, h)
	const n = 20_000 // far more answers than a socket holds
	for _, how := range [][]string{{"--data-binary", "@-"}, {"-X", "POST", "-T", "-"}} {
		args := append([]string{"-sS", "--max-time", "60", "--unix-socket", filepath.Join(s.dir, socket.Name), "http://localhost/v1/events"}, how...)
		cmd := exec.CommandContext(t.Context(), curl, args...)
		cmd.Stdin = strings.NewReader(strings.Repeat(small, n))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", how, err)
		}
		if got := bytes.Count(out, []byte("\n")); got != n || bytes.Contains(out, []byte("error")) {
			t.Errorf("%v: %d answers, want %d", how, got, n)
		}
	}
}

func TestAThousandEventsMayBeSentBeforeTheirAnswersAreRead(t *testing.T) {
	h := newMemoryHolder()
	s := serve(t, h)
	conn := connect(t, s)
	ev := event("") // no key
	body := bytes.Repeat(append(ev, '\n'), 1000)[:128<<10]
	body = append(body[:bytes.LastIndexByte(body, '\n')+1], strings.Repeat(small, 1000-bytes.Count(body, []byte("\n")))...)
	fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		n := len(h.lines)
		h.mu.Unlock()
		if n == 1000 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d events were recorded", n)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || bytes.Count(b, []byte(`"event_id"`)) != 1000 {
		t.Errorf("%d receipts, %v", bytes.Count(b, []byte(`"event_id"`)), err)
	}
}

func TestNothingIsSentWhenTheContextHasEnded(t *testing.T) {
	h := newMemoryHolder()
	c := dial(t, serve(t, h))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Record(ctx, event("a")); !errors.Is(err, context.Canceled) || errors.Is(err, &socket.Error{Code: socket.Unknown}) {
		t.Errorf("error %v", err)
	}
	if r, err := c.Record(t.Context(), event("b")); err != nil || r.Index != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		s := serve(t, newMemoryHolder())
		for i := range 10 {
			c := dial(t, s)
			if _, err := c.Record(t.Context(), event(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
			head(t, connect(t, s))
		}
	})
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
