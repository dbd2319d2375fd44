package cli

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unitFiles are the units for systemd, with what the program's path is there.
func unitFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, pattern := range []string{"*.service", "*.timer"} {
		names, err := filepath.Glob(filepath.Join("..", "..", "packaging", "systemd", pattern))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(name)] = string(text)
		}
	}
	return files
}

const unitProgram = "/usr/local/bin/kaizen-audit"

// What the units start is a command of this program, with flags that it has.
func TestUnitsStartWhatThereIs(t *testing.T) {
	for name, text := range unitFiles(t) {
		section, started := "", false
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				section = line
			}
			if line == "" || line[0] == '#' || line[0] == '[' {
				continue
			}
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" {
				t.Errorf("%s: %q is no setting of a section", name, line)
			}
			if key != "ExecStart" {
				continue
			}
			started = true
			words := strings.Fields(value)
			if words[0] != unitProgram {
				t.Errorf("%s starts %s", name, words[0])
			}
			a := &app{stdout: newTerminal(io.Discard), stderr: newTerminal(io.Discard)}
			cmd, rest, err := a.root().Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil || !cmd.HasParent() || len(cmd.Flags().Args()) > 0 {
				t.Errorf("%s: %s: %v", name, value, err)
			}
		}
		if started != strings.HasSuffix(name, ".service") {
			t.Errorf("%s: whether it starts something: %v", name, started)
		}
	}
}

// systemd knows every setting of the units.
func TestSystemdAcceptsTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	program, err := os.Executable() // one that is there
	if err != nil {
		t.Fatal(err)
	}
	check := func(text map[string]string) (string, error) {
		args := []string{"verify", "--man=no"}
		for name, text := range text {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, unitProgram, program)), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, file)
		}
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		return string(out), err
	}
	units := unitFiles(t)
	if out, err := check(units); err != nil || strings.Contains(out, dir) {
		t.Errorf("%v\n%s", err, out)
	}
	units["kaizen-audit.service"] = strings.Replace(units["kaizen-audit.service"], "ProtectClock=", "ProtectCluck=", 1)
	if out, _ := check(units); !strings.Contains(out, "ProtectCluck") {
		t.Errorf("a setting that there is not is accepted: %s", out)
	}
}
