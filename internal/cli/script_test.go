package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// noRaceSleep keeps a command that is built with the race detector from sleeping for a
// second at its end.
const noRaceSleep = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	os.Setenv("GORACE", noRaceSleep) // for the commands that tests start; read at a start
	testscript.Main(m, map[string]func(){"kaizen-audit": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}

// TestScripts are the command line as people type it: one script for each
// command, in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("KAIZEN_AUDIT_STATE", filepath.Join(env.WorkDir, "state"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", noRaceSleep)
			env.Setenv("TZ", "Europe/Berlin") // whatever does not say its zone shows
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "replace": replace, "perm": perm, "repeat": repeat, "lines": lines, "vkey": vkey, "pseudonym": pseudonym,
		},
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
	})
}

// code runs a command and wants its exit code: code 4 kaizen-audit record.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// replace changes text in a file: replace FILE OLD NEW.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	name := ts.MkAbs(args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	unescape := strings.NewReplacer(`\n`, "\n").Replace
	changed := bytes.Replace(data, []byte(unescape(args[1])), []byte(unescape(args[2])), 1)
	if bytes.Equal(data, changed) {
		ts.Fatalf("%s lacks %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(name, changed, 0o600))
}

// perm sets a file's mode: perm 000 FILE.
func perm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: perm MODE FILE")
	}
	mode, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	ts.Check(os.Chmod(ts.MkAbs(args[1]), os.FileMode(mode)))
}

// repeat writes a file with text many times: repeat FILE TIMES BEFORE TEXT AFTER.
func repeat(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: repeat FILE TIMES BEFORE TEXT AFTER")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[2]+strings.Repeat(args[3], n)+args[4]+"\n"), 0o600))
}

// lines wants a file, stdout or stderr to have so many lines: lines stdout 3.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	if got := strings.Count(ts.ReadFile(args[0]), "\n"); got != want {
		ts.Fatalf("%s has %d lines, want %d:\n%s", args[0], got, want, ts.ReadFile(args[0]))
	}
}

// pseudonym puts the first 64 hex digits of a file in a variable: pseudonym NAME stdout.
func pseudonym(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pseudonym NAME FILE")
	}
	found := regexp.MustCompile(`[0-9a-f]{64}`).FindString(ts.ReadFile(args[1]))
	if found == "" {
		ts.Fatalf("%s has none", args[1])
	}
	ts.Setenv(args[0], found)
}

// vkey puts a trail's verifier key in a variable: vkey NAME a.trail/trail.json.
func vkey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: vkey NAME FILE")
	}
	var id struct {
		VKey string `json:"vkey"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &id))
	ts.Setenv(args[0], id.VKey)
}
