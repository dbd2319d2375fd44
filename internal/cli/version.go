package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what the program knows of its own making, and the JSON of version.
type build struct {
	Version  string `json:"version"` // of the module; (devel) when built from a checkout
	Commit   string `json:"commit"`
	Time     string `json:"time"` // of the commit
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	System   string `json:"system"`
}

// version is set by the linker where the source is no checkout that says it:
// -X github.com/kaizen-audit/kaizen-audit/internal/cli.version=v1.2.3.
var version string

func buildInfo() build {
	b := build{Version: "(devel)", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = cmp.Or(version, info.Main.Version, b.Version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	s := programName + " " + b.Version
	if b.Commit != "" {
		s += ", commit " + b.Commit
		if b.Modified {
			s += " with changes"
		}
	}
	return fmt.Sprintf("%s, %s, %s", s, b.Go, b.System)
}

func (a *app) versionCommand() *cobra.Command {
	format := newChoice("text", "json")
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the program's version",
		Long:    `Shows the version of the program, the commit it was built from, and with which Go.`,
		Example: `  kaizen-audit version`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format.value == "json" {
				return printJSON(a.stdout, buildInfo())
			}
			_, err := fmt.Fprintln(a.stdout, buildInfo())
			return err
		},
	}
	addFormat(cmd, format)
	return cmd
}
