package audit

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/access"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// peerOfNobody is a peer of a user that has no role.
var peerOfNobody = socket.Peer{UID: shipperUID, PID: 1}

// peerChild makes the test binary a peer of another user's trail: it asks what its
// environment says, "METHOD /path body" a line, and prints a status a line.
const peerChild = "KAIZEN_TEST_PEER_CHILD"

func init() {
	sock := os.Getenv(peerChild)
	if sock == "" {
		return
	}
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", sock)
	}}}
	asked, _ := io.ReadAll(os.Stdin)
	for line := range strings.Lines(string(asked)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		r, err := http.NewRequest(parts[0], "http://localhost"+parts[1], strings.NewReader(parts[2]))
		if err != nil {
			fmt.Println(err)
			continue
		}
		answer, err := client.Do(r)
		if err != nil {
			fmt.Println(err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		fmt.Println(answer.StatusCode, strings.Contains(string(body), "canary"), err)
	}
	os.Exit(0)
}

// A peer of another user that the socket's group lets in may record, and what its
// roles allow; where access is not controlled, record alone. Who is refused is an entry
// with the user that the system names.
func TestRolesOfPeersOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	dir := openFolder(t)
	path := filepath.Join(dir, "audit.jsonl")
	o := &Options{StateDir: t.TempDir(), KEK: testKEK(t, 1), SocketGroup: fmt.Sprint(shipperGID)}
	if _, err := Init(path, &InitOptions{Profile: "gdpr", Options: *o}); err != nil {
		t.Fatal(err)
	}
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("canary", "t"))
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
	requests := []struct{ need, text string }{
		{"read", "GET /v1/entries "}, {"read", "GET /v1/report "}, {"export", "GET /v1/users/canary "},
		{"erase", `POST /v1/erasures {"user":"canary","options":{"dry_run":true}}`}, {"erase", "POST /v1/erasures/due {}"},
		{"manage", `POST /v1/prunes {"dry_run":true}`}, {"manage", "POST /v1/rotations {}"},
		{"nobody", `POST /v1/pseudonyms {"user":"canary"}`}, {"nobody", `POST /v1/readings {"event_type":"AUDIT_QUERY","action":"query"}`},
		{"", "GET /v1/trail "}, {"", `POST /v1/events {"event_type":"TOOL_USE","agent_id":"a","action":"x"}`},
		// Its own user may not have the holder write files, whatever its role.
		{"nobody", `POST /v1/erasures {"user":"canary","options":{"reason":"x","certificate":"` + filepath.Join(dir, "c.json") + `"}}`},
	}
	ask := func() []string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "peer"), "-test.run=^$")
		cmd.Env, cmd.Dir = []string{peerChild + "=" + filepath.Join(trail.Dir(), "sock")}, dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: shipperUID, Gid: shipperGID}}
		var asked strings.Builder
		for _, r := range requests {
			asked.WriteString(r.text + "\n")
		}
		cmd.Stdin = strings.NewReader(asked.String())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	}
	who := fmt.Sprint("uid:", shipperUID)
	for name, c := range map[string]*Access{
		"off":  {},
		"none": {Enabled: true},
		// By user and by group; a role that is not allowed does not count.
		"auditor":         {Enabled: true, Users: map[string][]string{who: {"auditor", "privacy_officer"}}},
		"privacy_officer": {Enabled: true, AllowedRoles: []string{"privacy_officer"}, Users: map[string][]string{who: {"privacy_officer", "auditor"}}},
		"compliance":      {Enabled: true, Users: map[string][]string{who: {"compliance_officer"}}},
		"another's":       {Enabled: true, Users: map[string][]string{fmt.Sprint("uid:", shipperUID+1): {"auditor"}, "root": {"auditor"}}},
	} {
		trail.access.Store(c)
		role := map[string]string{"auditor": "auditor", "privacy_officer": "privacy_officer", "compliance": "compliance_officer"}[name]
		for i, got := range ask() {
			r := requests[i]
			may := r.need == "" || slices.Contains(access.BuiltIn[role].Permissions, access.Permission(r.need))
			if allowed := !strings.HasPrefix(got, "403 "); allowed != may || !strings.HasSuffix(got, "<nil>") {
				t.Errorf("%s: %s: %s, want allowed %v", name, r.text, got, may)
			}
			if shown := strings.Contains(got, " true "); shown && !may {
				t.Errorf("%s: %s shows what is sealed", name, r.text)
			}
		}
	}
	trail.access.Store(&Access{})
	if err := trail.flushDenials(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, told := refusalsOf(t, trail); told[who] != 7+7+5+4+2 {
		t.Errorf("%d refusals are told of", told[who])
	}
}

// The innermost principal of a context counts, and a peer of the socket before any: who
// hands a context on gives nobody more than the last who said who asks.
func TestNestedPrincipals(t *testing.T) {
	trail, _ := controlled(t)
	as := func(ctx context.Context, id string, roles ...string) context.Context {
		return WithPrincipal(ctx, Principal{ID: id, Roles: roles})
	}
	ctx := context.Background()
	auditor := as(ctx, "ann", "auditor")
	cancelled, cancel := context.WithCancel(auditor)
	defer cancel()
	type key struct{}
	for name, c := range map[string]struct {
		ctx context.Context
		may bool
	}{
		"an auditor":                          {auditor, true},
		"below it other values":               {context.WithValue(cancelled, key{}, "x"), true},
		"an auditor within nobody's":          {as(as(ctx, "bob"), "ann", "auditor"), true},
		"nobody's role within an auditor":     {as(auditor, "bob"), false},
		"a role that is not, within":          {as(auditor, "bob", "boss"), false},
		"without a name within an auditor":    {as(auditor, ""), false},
		"without a name, with a role":         {as(ctx, "", "auditor"), false},
		"by the trail's own name":             {as(ctx, "kaizen-audit"), false},
		"by that name, within the trail's":    {as(WithTrailItself(ctx), "kaizen-audit"), false},
		"the trail itself":                    {WithTrailItself(ctx), true},
		"nobody":                              {ctx, false},
		"a principal within the trail itself": {as(WithTrailItself(ctx), "bob"), false},
		"the peer of an auditor's context":    {withPeer(auditor, peerOfNobody), false},
		"an auditor in a peer's context":      {as(withPeer(ctx, peerOfNobody), "ann", "auditor"), false},
		"the trail itself in a peer's":        {WithTrailItself(withPeer(ctx, peerOfNobody)), false},
	} {
		_, err := collect(trail.Query(c.ctx, Query{Agent: "agent"}))
		if may := err == nil; may != c.may {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A principal changed after it was put into a context changes nothing there.
	roles := []string{"auditor"}
	held := WithPrincipal(ctx, Principal{ID: "ann", Roles: roles})
	none := WithPrincipal(ctx, Principal{ID: "bob", Roles: roles[:0:0]})
	roles[0] = "boss"
	if _, err := collect(trail.Query(held, Query{})); err != nil {
		t.Errorf("held: %v", err)
	}
	if _, err := collect(trail.Query(none, Query{})); err == nil {
		t.Error("no roles read")
	}
}
