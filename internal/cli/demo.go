package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
)

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "See it work on real agent runs, in a temporary folder",
		Long: `Records six real agent runs that ship with the program in a temporary folder,
then shows a query, a run as a tree, the compliance report and verify; then
changes one digit in a copy and shows verify finding it. It takes a few seconds,
touches nothing outside that folder, and leaves it for you to try more.`,
		Example: `  kaizen-audit demo`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "kaizen-audit-demo-")
			if err != nil {
				return err
			}
			d := &demo{app: a, ctx: cmd.Context(), dir: dir, log: filepath.Join(dir, "audit.jsonl")}
			return d.run()
		},
	}
}

// demo is one showing. Each of its steps is the command itself.
type demo struct {
	app *app
	ctx context.Context
	dir string
	log string
}

// told is what the agent told a customer about an order's payment, once in the
// sample; forged is the same with one digit changed.
const (
	told   = "a total payment of $829.43"
	forged = "a total payment of $929.43"
)

func (d *demo) run() error {
	begun := time.Now()
	events, err := replay(demoRuns)
	if err != nil {
		return err
	}
	traces := map[string]bool{}
	for _, ev := range events {
		traces[ev.TraceID] = true
	}
	d.head("Recording %d steps of %d real agent runs (airline, retail, coding, patient records, browser)", len(events), len(traces))
	target, err := d.record(events)
	if err != nil {
		return err
	}
	d.tell("in %s, every one on disk before its receipt was given", d.log)

	d.head("What failed?")
	if err := d.command("query", "--log", d.log, "--failed"); err != nil {
		return err
	}
	d.head("One run as a tree: an agent looks for a page on the web")
	if err := d.command("trace", "inspect_ai/ATYFNjyWUz4mZ5Dgj6yd4f", "--log", d.log); err != nil {
		return err
	}
	d.head("The compliance report")
	if err := d.command("report", "--log", d.log); err != nil {
		return err
	}
	d.head("Is it all still as it was recorded?")
	if err := d.command("verify", "--log", d.log); err != nil {
		return err
	}

	d.head("Somebody changes one digit in a copy: entry %d, %q becomes %q", target, told[len(told)-7:], forged[len(forged)-7:])
	copied := filepath.Join(d.dir, "tampered", "audit.jsonl")
	if err := d.tamper(copied); err != nil {
		return err
	}
	err = d.command("verify", "--log", copied)
	var failed failedError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), fmt.Sprintf("entry %d ", target)) {
		return errors.Join(errors.New("verify did not find the change"), err)
	}

	d.head("That took %.1f seconds. Try next", time.Since(begun).Seconds())
	log, program := advice.Quote(d.log), invocation()
	for _, line := range []string{
		"export KAIZEN_AUDIT_STATE=" + advice.Quote(d.state()),
		program + " query --log " + log + " --user noah_ito_3850",
		program + " query --log " + log + " --event-type PHI_ACCESS --format json",
		program + " trace --log " + log + " tau-bench/gpt-4o-airline/0115",
		fmt.Sprintf("%s prove --log %s %d", program, log, target),
		program + " query --log " + log + " --audit --event-type AUDIT_QUERY,AUDIT_REPORT   # who looked",
		"rm -r " + advice.Quote(d.dir),
	} {
		fmt.Fprintln(d.app.stdout, "  "+line)
	}
	return nil
}

// invocation is how this program can be run again.
func invocation() string {
	if _, err := exec.LookPath(programName); err == nil {
		return programName
	}
	self, err := os.Executable()
	switch {
	case err != nil:
		return programName
	case strings.Contains(self, "go-build"): // go run's, which is gone by then
		return "go run ./cmd/" + programName
	}
	return advice.Quote(self)
}

// state is where the demo's pins are: nothing of it stays outside its folder.
func (d *demo) state() string { return filepath.Join(d.dir, "state") }

func (d *demo) head(format string, args ...any) {
	fmt.Fprintf(d.app.stdout, "\n%s\n", d.app.stdout.paint(bold, "== "+fmt.Sprintf(format, args...)))
}

func (d *demo) tell(format string, args ...any) {
	fmt.Fprintf(d.app.stdout, format+"\n", args...)
}

// record records the events, and finds the entry that will be forged.
func (d *demo) record(events []audit.Event) (target int64, err error) {
	trail, err := audit.Open(d.log, &audit.Options{StateDir: d.state(), Command: programName + " demo", Warn: d.app.warn})
	if err != nil {
		return 0, err
	}
	defer d.app.closing(&err, trail)
	receipts, err := trail.RecordBatch(d.ctx, events)
	if err != nil {
		return 0, err
	}
	target = -1
	for i, ev := range events {
		if outputs, err := ev.Outputs.AppendJSON(nil); err == nil && bytes.Contains(outputs, []byte(told)) {
			target = receipts[i].Index
		}
	}
	if target < 0 {
		return 0, errors.New("the sample lacks the entry that the demo changes")
	}
	return target, nil
}

// command shows a command line and carries it out.
func (d *demo) command(args ...string) error {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = advice.Quote(arg)
	}
	d.tell("%s\n", d.app.stdout.paint(faint, "$ "+programName+" "+strings.Join(words, " ")))
	inner := &app{stdin: bytes.NewReader(nil), stdout: d.app.stdout, stderr: d.app.stderr, stateDir: d.state()}
	root := inner.root()
	root.SetArgs(args)
	err := root.ExecuteContext(d.ctx)
	var failed failedError
	if errors.As(err, &failed) {
		d.tell("exit code %d", exitFailed)
	}
	return err
}

// tamper copies the trail and changes one digit in the copy of the log.
func (d *demo) tamper(to string) error {
	if err := os.CopyFS(strings.TrimSuffix(to, ".jsonl")+".trail", os.DirFS(strings.TrimSuffix(d.log, ".jsonl")+".trail")); err != nil {
		return err
	}
	lines, err := os.ReadFile(d.log)
	if err != nil {
		return err
	}
	changed := bytes.Replace(lines, []byte(told), []byte(forged), 1)
	if bytes.Equal(lines, changed) {
		return errors.New("the log lacks the text that the demo changes")
	}
	return os.WriteFile(to, changed, 0o600)
}
