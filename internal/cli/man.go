package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Writes a manual page for each command to DIR, which is made if it is missing:
kaizen-audit.1, kaizen-audit-record.1 and so on. They say what --help says.`,
		Example: `  kaizen-audit man ~/.local/share/man/man1
  man kaizen-audit-record`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usagef("one directory is needed")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManPages(cmd.Root(), args[0])
		},
	}
}

// writeManPages writes the page of cmd and of each command below it.
func writeManPages(cmd *cobra.Command, dir string) error {
	cmd.InitDefaultHelpFlag()
	name := filepath.Join(dir, manName(cmd)+".1")
	if err := durable.WriteFile(durable.OS, name, manPage(cmd), 0o644); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if c.Hidden {
			continue
		}
		if err := writeManPages(c, dir); err != nil {
			return err
		}
	}
	return nil
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is a command's manual page in the man macros (man(7)). Its date is
// that of the commit, so that two builds of one commit give one page.
func manPage(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	info := buildInfo()
	date, _, _ := strings.Cut(info.Time, "T")
	fmt.Fprintf(&b, ".TH %s 1 %s %s %s\n", manWord(strings.ToUpper(manName(cmd))), manWord(date), manWord(programName+" "+info.Version), manWord("User Commands"))
	section := func(title string) { fmt.Fprintf(&b, ".SH %s\n", title) }
	section("NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(manName(cmd)), roff(cmd.Short))
	section("SYNOPSIS")
	if !cmd.HasParent() {
		fmt.Fprintf(&b, ".B %s\n.I COMMAND\n[\\fIFLAG\\fR...]\n", roff(cmd.CommandPath()))
	} else {
		fmt.Fprintf(&b, ".B %s\n", roff(cmd.UseLine()))
	}
	section("DESCRIPTION")
	manText(&b, cmd.Long)
	if commands := cmd.Commands(); len(commands) > 0 {
		section("COMMANDS")
		for _, c := range commands {
			if !c.Hidden {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(manName(c)), roff(c.Short))
			}
		}
	}
	manFlags(&b, "OPTIONS", cmd.NonInheritedFlags())
	manFlags(&b, "GLOBAL OPTIONS", cmd.InheritedFlags())
	if cmd.Example != "" {
		section("EXAMPLES")
		fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(cmd.Example))
	}
	section("EXIT STATUS")
	for _, e := range exitWords {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", e.code, roff(e.words))
	}
	if !cmd.HasParent() {
		section("ENVIRONMENT")
		for _, f := range settingFlags {
			fmt.Fprintf(&b, ".TP\n.B %s\nas \\fB\\-\\-%s\\fR, which wins over it\n", envName(f), roff(f))
		}
	} else {
		section("SEE ALSO")
		fmt.Fprintf(&b, ".BR %s (1)\n", roff(manName(cmd.Parent())))
	}
	return b.Bytes()
}

func manFlags(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if kind != "" {
			name += ` \fI` + roff(kind) + `\fR`
		}
		fmt.Fprintf(b, ".TP\n%s\n%s", name, roff(usage))
		switch f.DefValue {
		case "", "false", "0", "0s", "[]":
		default:
			fmt.Fprintf(b, " (default %s)", roff(f.DefValue))
		}
		b.WriteByte('\n')
	})
}

// manText writes paragraphs; lines that are indented stay as they are.
func manText(b *bytes.Buffer, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		if strings.HasPrefix(paragraph, " ") || strings.HasPrefix(paragraph, "\t") {
			fmt.Fprintf(b, ".nf\n%s\n.fi\n", roff(paragraph))
		} else {
			fmt.Fprintf(b, "%s\n", roff(paragraph))
		}
	}
}

// roff escapes text for troff: backslashes, hyphens that are to be typed, and
// a point or apostrophe that would begin a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// manWord is one argument of a request.
func manWord(s string) string { return `"` + strings.ReplaceAll(roff(s), `"`, `\(dq`) + `"` }
