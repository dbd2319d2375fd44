package audit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheLibraryLinksNoCloud names what a program that uses the library must not
// have in it, and why.
func TestTheLibraryLinksNoCloud(t *testing.T) {
	unwanted := map[string]string{
		"github.com/minio/minio-go":  "only archive/s3 has it, which a program chooses",
		"github.com/aws/aws-sdk-go":  "a cloud's SDK",
		"gocloud.dev":                "a cloud's SDK, of module kms/cloud",
		"github.com/spf13/cobra":     "the command line",
		"github.com/parquet-go":      "a format for exports",
		"google.golang.org/grpc":     "nothing here speaks it",
		"google.golang.org/protobuf": "internal/otlp reads the wire format itself",
		"github.com/rogpeppe/":       "for tests and the command line",
		"go.yaml.in/yaml":            "the command's configuration file",
	}
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("only %d packages are listed", len(deps))
	}
	for _, dep := range deps {
		for prefix, why := range unwanted {
			if strings.HasPrefix(dep, prefix) {
				t.Errorf("%s is linked into programs that use the library: %s", dep, why)
			}
		}
	}
}

// What is shortened or skipped under the race detector is in make simulate's list: a
// name that is wrong on either side would be a test that nobody runs.
func TestSimulateRunsWhatRaceShortens(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?m)^simulate:\n.*'\^\(([A-Za-z|]+)\)\$\$' \.$`).FindSubmatch(makefile)
	if list == nil {
		t.Fatal("the Makefile's list is not where it was")
	}
	simulated := strings.Split(string(list[1]), "|")
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	begins := regexp.MustCompile(`^func (\w+)\(`)
	var all, shortened []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in := ""
		for line := range strings.Lines(string(text)) {
			if m := begins.FindStringSubmatch(line); m != nil {
				in = m[1]
				all = append(all, in)
			}
			if strings.HasPrefix(in, "Test") && strings.Contains(line, "make simulate"+" runs") {
				shortened = append(shortened, in)
			}
		}
	}
	for _, name := range shortened {
		if !slices.Contains(simulated, name) {
			t.Errorf("make simulate does not run %s", name)
		}
	}
	for _, name := range simulated {
		if !slices.Contains(all, name) {
			t.Errorf("make simulate names %s, and there is none", name)
		}
	}
	if len(shortened) < 5 {
		t.Errorf("only %d tests are found that say so", len(shortened))
	}
}
