//go:build cgo

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/cli"
)

// The command with a key in a PKCS#11 token: made, recorded, read, and nothing of the
// PIN in what it says.
func TestCommandWithAnHSM(t *testing.T) {
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	if _, err := os.Stat(module); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("softhsm2 is not installed")
		}
		t.Skip("softhsm2 is not installed")
	}
	dir := t.TempDir()
	b := make([]byte, 6)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	pin := hex.EncodeToString(b)
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", file("softhsm2.conf", "directories.tokendir = "+dir+"/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"))
	t.Setenv("KAIZEN_AUDIT_STATE", filepath.Join(dir, "state"))
	if out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "audit", "--so-pin", pin, "--pin", pin).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	key := "pkcs11:token=audit;object=kek?module-path=" + module + "&pin-source=file:" + file("pin", pin+"\n") + "&create=yes"
	log := filepath.Join(dir, "audit.jsonl")
	run := func(stdin string, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		code := cli.Main(context.Background(), append(args, "--log", log, "--key-url", key), strings.NewReader(stdin), &out, &errs, services()...)
		if code != 0 || strings.Contains(out.String()+errs.String(), pin) {
			t.Fatalf("%v: exit %d\n%s%s", args, code, out.String(), errs.String())
		}
		return out.String()
	}
	run("", "init", "--encrypt")
	run(`{"event_type":"TOOL_USE","agent_id":"a","action":"tool_use:x","metadata":{"user_id":"mia"}}`, "record")
	if got := run("", "query", "--user", "mia", "--format", "jsonl"); !strings.Contains(got, "tool_use:x") {
		t.Errorf("%s", got)
	}
	if got := run("", "keys", "list"); !strings.Contains(got, "pkcs11:token=audit;object=kek") {
		t.Errorf("%s", got)
	}
}
