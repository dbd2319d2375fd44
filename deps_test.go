package audit_test

import (
	"os/exec"
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
