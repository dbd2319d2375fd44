package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/access"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// Every call has a rule: one without is denied where access is controlled, and fails
// here.
func TestEveryCallHasARule(t *testing.T) {
	for _, of := range []reflect.Type{reflect.TypeFor[*Trail](), reflect.TypeFor[*AuditTrailManager]()} {
		for i := range of.NumMethod() {
			if name := of.Method(i).Name; of.Method(i).IsExported() {
				if _, ok := operations[name]; !ok {
					t.Errorf("%s has no rule in operations", name)
				}
			}
		}
	}
}

// controlled is a sealing trail with a person's entry, whose reading needs a role.
func controlled(t *testing.T) (*Trail, *Options) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	o := &Options{StateDir: filepath.Join(dir, "state"), KeyFile: filepath.Join(dir, "kek"), NoSocket: true, Command: "test"}
	if _, err := Init(path, &InitOptions{Profile: "gdpr", Options: *o}); err != nil {
		t.Fatal(err)
	}
	o.Access = &Access{Enabled: true, AllowedRoles: []string{"auditor", "compliance_officer", "security_admin", "privacy_officer", "agent_developer", "desk"},
		Roles: map[string]Role{"desk": {Permissions: []access.Permission{access.Masked}, Agents: []string{"a*"}, Fields: []string{"/metadata/user_id"}}},
		Users: map[string][]string{"mallory": {"no such"}}}
	if _, err := Open(path, o); err == nil || !strings.Contains(err.Error(), `users.mallory: there is no role "no such"`) {
		t.Fatalf("%v", err)
	}
	o.Access.Users = map[string][]string{"carol": {"compliance_officer"}}
	trail, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trail.Close() })
	mustRecord(t, trail, personalEvent("mia", "t"))
	return trail, o
}

// calls are the calls that need a role, each with arguments that are refused or do
// nothing where it is allowed.
func calls(t *testing.T, trail *Trail) map[string]func(ctx context.Context) error {
	m := &AuditTrailManager{trail}
	all := func(seq func(func(Entry, error) bool)) error {
		for _, err := range seq {
			if err != nil {
				return err
			}
		}
		return nil
	}
	file := filepath.Join(t.TempDir(), "backup")
	store, err := archive.OpenDir("file://" + t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(context.Context) error{
		"Query":                 func(ctx context.Context) error { return all(trail.Query(ctx, Query{})) },
		"Trace":                 func(ctx context.Context) error { _, err := trail.Trace(ctx, "t"); return err },
		"Tail":                  func(ctx context.Context) error { return all(trail.Tail(ctx, Query{}, 3, false)) },
		"ComplianceReport":      func(ctx context.Context) error { _, err := trail.ComplianceReport(ctx); return err },
		"WriteComplianceReport": func(ctx context.Context) error { return trail.WriteComplianceReport(ctx, io.Discard) },
		"GapReport":             func(ctx context.Context) error { _, err := trail.GapReport(ctx); return err },
		"Prove":                 func(ctx context.Context) error { _, err := trail.Prove(ctx, 0); return err },
		"ProveConsistency":      func(ctx context.Context) error { _, err := trail.ProveConsistency(ctx, nil); return err },
		"Holds":                 func(ctx context.Context) error { _, err := trail.Holds(ctx); return err },
		"QueryByAgent":          func(ctx context.Context) error { _, err := m.QueryByAgent(ctx, "a"); return err },
		"QueryByTrace":          func(ctx context.Context) error { _, err := m.QueryByTrace(ctx, "t"); return err },
		"QueryByUser":           func(ctx context.Context) error { _, err := m.QueryByUser(ctx, "mia"); return err },
		"QueryByTimeRange": func(ctx context.Context) error {
			_, err := m.QueryByTimeRange(ctx, trail.clock.now(), trail.clock.now())
			return err
		},
		"AuditEntries":           func(ctx context.Context) error { _, err := m.AuditEntries(ctx); return err },
		"ExportComplianceReport": func(ctx context.Context) error { _, err := m.ExportComplianceReport(ctx); return err },
		"ExportUser":             func(ctx context.Context) error { _, err := trail.ExportUser(ctx, "mia", io.Discard); return err },
		"ExportUserData":         func(ctx context.Context) error { _, err := m.ExportUserData(ctx, "mia"); return err },
		"Disclose":               func(ctx context.Context) error { _, err := trail.Disclose(ctx, 1<<40); return err },
		"SealedFields":           func(ctx context.Context) error { _, err := trail.SealedFields(ctx, 0); return err },
		"EraseUser": func(ctx context.Context) error {
			_, err := trail.EraseUser(ctx, "mia", &EraseOptions{DryRun: true})
			return err
		},
		"Reveal":            func(ctx context.Context) error { _, err := trail.Reveal(ctx, "nobody's", "x"); return err },
		"ScheduledErasures": func(ctx context.Context) error { _, err := trail.ScheduledErasures(ctx); return err },
		"CancelErasure":     func(ctx context.Context) error { return trail.CancelErasure(ctx, "none", "x") },
		"EraseDue":          func(ctx context.Context) error { _, err := trail.EraseDue(ctx); return err },
		"RotateKEK":         func(ctx context.Context) error { return trail.RotateKEK(ctx) },
		"RotateDEK":         func(ctx context.Context) error { return trail.RotateDEK(ctx) },
		"RotateSigningKey":  func(ctx context.Context) error { return trail.RotateSigningKey(ctx, false) },
		"RetireSigningKey":  func(ctx context.Context) error { return trail.RetireSigningKey(ctx) },
		"BackupKeys":        func(ctx context.Context) error { _, err := trail.BackupKeys(ctx, file, 0); return err },
		"SetRetention":      func(ctx context.Context) error { return trail.SetRetention(ctx, -1, false) },
		"Prune":             func(ctx context.Context) error { _, err := trail.Prune(ctx, &PruneOptions{DryRun: true}); return err },
		"AddHold":           func(ctx context.Context) error { _, err := trail.AddHold(ctx, HoldRequest{}); return err },
		"LiftHold":          func(ctx context.Context) error { return trail.LiftHold(ctx, "none", "x") },
		"Archive":           func(ctx context.Context) error { _, err := trail.Archive(ctx, nil, nil); return err },
		"PruneArchive":      func(ctx context.Context) error { _, err := trail.PruneArchive(ctx, store, true); return err },
		"Rotate":            func(ctx context.Context) error { _, err := trail.Rotate(ctx); return err },
	}
}

// Each call by each role, and by nobody: allowed or denied as operations and the roles
// say, and every refusal is an entry.
func TestRolesAndCalls(t *testing.T) {
	trail, _ := controlled(t)
	denied := 0
	list := calls(t, trail)
	for name, want := range operations {
		if _, ok := list[name]; !ok && want != access.None {
			t.Errorf("%s is in no test", name)
		}
	}
	ctx := context.Background()
	for _, role := range []string{"", "auditor", "compliance_officer", "security_admin", "privacy_officer", "agent_developer", "desk"} {
		for name, call := range list {
			if name == "Archive" && role != "" && access.BuiltIn[role].Permissions != nil && contains(access.BuiltIn[role].Permissions, access.Manage) {
				continue // it needs a store; that it is let through is what Rotate shows too
			}
			as := ctx
			if role != "" {
				as = WithPrincipal(ctx, Principal{ID: "someone", Roles: []string{role}, Agents: []string{"a"}})
			}
			err := call(as)
			may := contains(access.BuiltIn[role].Permissions, operations[name])
			switch {
			case inPart[name] && (role == "agent_developer" || role == "desk"):
				may = name != "QueryByUser" // which asks about what is masked
			}
			if got := !errors.Is(err, ErrDenied); got != may {
				t.Errorf("%s by %q: allowed %v, want %v: %v", name, role, got, may, err)
			}
			if errors.Is(err, ErrDenied) {
				denied++
			}
		}
	}
	if err := trail.flushDenials(ctx, true); err != nil {
		t.Fatal(err)
	}
	said := int64(0)
	_, told := refusalsOf(t, trail)
	for _, n := range told {
		said += n
	}
	if said != int64(denied) {
		t.Errorf("%d refusals are recorded, of %d", said, denied)
	}
}

// documented is the table of docs/access.md under a heading, a row a list of the
// names in backquotes of each cell.
func documented(t *testing.T, heading string) (rows [][][]string) {
	t.Helper()
	text, err := os.ReadFile("docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/access.md has no %s", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") {
			continue
		}
		var row [][]string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			var names []string
			for i, part := range strings.Split(cell, "`") {
				if i%2 == 1 {
					names = append(names, part)
				}
			}
			row = append(row, names)
		}
		rows = append(rows, row)
	}
	return rows[1:] // without the head
}

// The tables of the documentation are those of the program.
func TestDocumentedRoles(t *testing.T) {
	roles := map[string]bool{}
	for _, row := range documented(t, "Roles") {
		var may []access.Permission
		for _, p := range row[1] {
			may = append(may, access.Permission(p))
		}
		if of, ok := access.BuiltIn[row[0][0]]; !ok || !slices.Equal(of.Permissions, may) {
			t.Errorf("%s may %v, and the documentation says %v", row[0][0], of.Permissions, may)
		}
		roles[row[0][0]] = true
	}
	if len(roles) != len(access.BuiltIn) {
		t.Errorf("%d roles are documented of %d", len(roles), len(access.BuiltIn))
	}
	calls := map[string]bool{}
	for i, row := range documented(t, "What needs which permission") {
		need := access.None
		if len(row[0]) > 0 {
			need = access.Permission(row[0][0])
		}
		for _, name := range row[1] {
			if rule, ok := operations[name]; !ok || rule != need || calls[name] || inPart[name] != (i == 0) {
				t.Errorf("%s needs %q, and the documentation says %q, or says it twice", name, rule, need)
			}
			calls[name] = true
		}
	}
	for name := range operations {
		if !calls[name] {
			t.Errorf("%s is not documented", name)
		}
	}
}

// Each request of the socket by each role, and by none: allowed or denied as the
// documentation says; and it says so of every request that there is.
func TestRolesAndRequests(t *testing.T) {
	path, o := profileTrail(t, "gdpr", Options{})
	roles := append(slices.Sorted(maps.Keys(access.BuiltIn)), "")
	o.Access = &Access{Enabled: true, AllowedRoles: roles[:len(roles)-1]}
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t"))
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", filepath.Join(trail.Dir(), "sock"))
	}}}
	defer client.CloseIdleConnections()
	bodies := map[string]string{
		"POST /v1/events":   `{"event_type":"TOOL_USE","agent_id":"a","action":"x"}`,
		"POST /v1/readings": `{"event_type":"AUDIT_QUERY","action":"query"}`, "POST /v1/pseudonyms": `{"user":"mia"}`,
		"POST /v1/erasures": `{"user":"mia","options":{"dry_run":true}}`, "POST /v1/prunes": `{"dry_run":true}`,
	}
	tried := map[string]bool{}
	for i, row := range documented(t, "What needs which permission") {
		need := access.None
		if len(row[0]) > 0 {
			need = access.Permission(row[0][0])
		}
		for _, request := range row[2] {
			tried[request] = true
			method, at, _ := strings.Cut(request, " ")
			for _, role := range roles {
				c := *trail.access.Load()
				c.Users = nil
				if role != "" {
					c.Users = map[string][]string{OSPrincipal().ID: {role}}
				}
				trail.access.Store(&c)
				body := bodies[request]
				if body == "" && method == http.MethodPost {
					body = "{}"
				}
				r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+strings.Replace(at, "{user}", "mia", 1), strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				answer, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				of := access.BuiltIn[role].Permissions
				may := need == access.None || contains(of, need) || i == 0 && contains(of, access.Masked)
				if got := answer.StatusCode != http.StatusForbidden && !bytes.Contains(text, []byte(`"code":"denied"`)); got != may || answer.StatusCode == http.StatusNotFound && !strings.Contains(at, "cancelled") && !strings.Contains(at, "lifted") {
					t.Errorf("%s by %q: allowed %v, want %v: %d %s", request, role, got, may, answer.StatusCode, text)
				}
			}
		}
	}
	// docs/protocol.md has a row for each request, which internal/socket answers.
	text, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Requests\n")
	section, _, _ = strings.Cut(section, "\n#")
	n := 0
	for line := range strings.Lines(section) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		method := ""
		for i, part := range strings.Split(cell, "`") {
			if i%2 == 0 || !strings.Contains(part, "/v1/") {
				continue
			}
			if m, _, ok := strings.Cut(part, " "); ok {
				method = m
			} else {
				part = method + " " + part
			}
			if n++; !tried[part] {
				t.Errorf("%s is not in docs/access.md", part)
			}
		}
	}
	if n != len(tried) {
		t.Errorf("%d requests are documented, and %d have a rule", n, len(tried))
	}
}

func contains(list []access.Permission, p access.Permission) bool {
	for _, x := range list {
		if x == p {
			return true
		}
	}
	return false
}

// Who reads masked sees what an agent did, and nothing of anybody; nothing that could
// confirm a guess goes with it.
func TestMaskedReading(t *testing.T) {
	trail, o := controlled(t)
	ctx := WithPrincipal(context.Background(), Principal{ID: "dev", Roles: []string{"agent_developer"}, Agents: []string{"a"}})
	full, err := collect(trail.Query(WithPrincipal(ctx, Principal{ID: "x", Roles: []string{"auditor"}}), Query{}))
	if err != nil || len(full) != 1 {
		t.Fatal(len(full), err)
	}
	own, err := collect(trail.Query(WithPrincipal(ctx, Principal{ID: "dev", Roles: []string{"agent_developer"}, Agents: []string{full[0].AgentID}}), Query{}))
	if err != nil || len(own) != 1 {
		t.Fatal(len(own), err)
	}
	e := own[0]
	if e.Digest() == full[0].Digest() || bytes.Contains(e.Line(), []byte("mia")) || !bytes.Contains(e.Line(), []byte(`"inputs":{"sealed":"denied"}`)) || e.Action != full[0].Action {
		t.Errorf("%s", e.Line())
	}
	other, err := collect(trail.Query(WithPrincipal(ctx, Principal{ID: "dev", Roles: []string{"agent_developer"}, Agents: []string{"other"}}), Query{}))
	if err != nil || len(other) != 0 {
		t.Errorf("%d entries of another's agent, %v", len(other), err)
	}
	if _, err := collect(trail.Query(WithPrincipal(ctx, Principal{ID: "dev", Roles: []string{"agent_developer"}, Agents: []string{full[0].AgentID}}), Query{Text: "mia"})); !errors.Is(err, ErrDenied) {
		t.Errorf("a masked text was asked for: %v", err)
	}
	// It is remembered, by a reader too, and by user.
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	o.Access, o.ReadOnly = nil, true
	again, err := Open(trail.Path(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := collect(again.Query(context.Background(), Query{})); !errors.Is(err, ErrDenied) {
		t.Errorf("nobody reads: %v", err)
	}
	if _, err := collect(again.Query(WithPrincipal(context.Background(), Principal{ID: "carol"}), Query{})); err != nil {
		t.Errorf("carol: %v", err)
	}
	if i, err := again.Info(context.Background()); err != nil || !strings.HasPrefix(i.AccessControl, "Enabled") {
		t.Errorf("%v %+v", err, i)
	}
}

// The operating system's user has the roles of the section access, on the command
// line and at the other end of the socket; and every call of the socket has a rule.
func TestRolesOfTheSystemsUsers(t *testing.T) {
	trail, _ := controlled(t)
	ctx := context.Background()
	peer := socket.Peer{UID: os.Getuid(), PID: os.Getpid()}
	shared := sharedTrail{trail}
	read := func() error {
		for _, err := range shared.Query(ctx, peer, Query{}) {
			return err
		}
		return nil
	}
	isDenied := func(err error) bool {
		e, ok := errors.AsType[*socket.Error](err)
		return ok && e.Code == socket.Denied
	}
	if err := read(); !isDenied(err) {
		t.Errorf("a peer without a role reads: %v", err)
	}
	if _, err := shared.Report(ctx, peer, "text"); !isDenied(err) {
		t.Errorf("a peer without a role gets a report: %v", err)
	}
	if _, err := shared.ExportUser(ctx, peer, "mia"); !isDenied(err) {
		t.Errorf("a peer without a role exports: %v", err)
	}
	if _, err := shared.Erase(ctx, peer, "mia", []byte(`{"dry_run":true}`)); !isDenied(err) {
		t.Errorf("a peer without a role erases: %v", err)
	}
	for name, call := range map[string]func(context.Context, socket.Peer, json.RawMessage) ([]byte, error){
		"prunes": shared.Prune, "rotates": shared.Rotate, "adds a hold": shared.AddHold, "lifts a hold": shared.LiftHold, "sets the period": shared.SetRetention,
		"erases what is due": shared.EraseDue, "cancels an erasure": shared.CancelErasure,
	} {
		if _, err := call(ctx, peer, []byte(`{}`)); !isDenied(err) {
			t.Errorf("a peer without a role %s: %v", name, err)
		}
	}
	rules := map[string]string{"Controlled": "Info", "Prune": "Prune", "Rotate": "Rotate", "AddHold": "AddHold", "LiftHold": "LiftHold", "SetRetention": "SetRetention", "Info": "Info", "Record": "Record", "NoteReading": "Record", "NoteRefused": "NoteRefused", "Pseudonym": "Pseudonymize", "Query": "Query", "Report": "ComplianceReport", "ExportUser": "ExportUserData", "Erase": "EraseUser", "EraseDue": "EraseDue", "CancelErasure": "CancelErasure"}
	of := reflect.TypeFor[socket.Holder]()
	for i := range of.NumMethod() {
		if _, ok := operations[rules[of.Method(i).Name]]; !ok {
			t.Errorf("the socket's call %s has no rule", of.Method(i).Name)
		}
	}
	c := *trail.access.Load()
	c.Users = map[string][]string{OSPrincipal().ID: {"auditor"}}
	trail.access.Store(&c)
	if err := read(); err != nil {
		t.Errorf("an auditor's reading: %v", err)
	}
	if _, err := collect(trail.Query(WithPrincipal(ctx, OSPrincipal()), Query{})); err != nil {
		t.Error(err)
	}
	if _, err := shared.ExportUser(ctx, peer, "mia"); !isDenied(err) {
		t.Errorf("an auditor exports: %v", err)
	}
	if _, err := shared.Prune(ctx, peer, []byte(`{"dry_run":true}`)); !isDenied(err) {
		t.Errorf("an auditor prunes: %v", err)
	}
	c.Users = map[string][]string{OSPrincipal().ID: {"compliance_officer"}}
	trail.access.Store(&c)
	if _, err := shared.Prune(ctx, peer, []byte(`{"dry_run":true}`)); err != nil {
		t.Errorf("a compliance officer prunes: %v", err)
	}
}
