package cli

import (
	"github.com/spf13/cobra"

	"github.com/kaizen-audit/kaizen-audit/internal/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check that a trail works here",
		Long: `Records a probe through each way in (as the holder or through its socket, and
through the spool), reads it back and proves it, and looks at the place, the
free space, every file's permissions, who can read the signing key, the lock,
the clock, anchors, archive and pin, and at calls that came over OTLP without what was
said in them. What does not hold is said in words, with what to do on stderr. The exit code is 1 when something fails; a warning does not change
it. Nothing is repaired.

The probes are entries: DOCTOR_PROBE by agent kaizen-audit-doctor.`,
		Example: `  kaizen-audit doctor
  kaizen-audit doctor --log audit.jsonl --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts := a.settings.options()
			opts.Command, opts.StateDir = cmd.CommandPath(), a.stateDir
			r, err := doctor.Examine(cmd.Context(), a.settings.log, opts)
			if err != nil {
				return err
			}
			if err := a.showExamined(r, format.value); err != nil {
				return err
			}
			if r.Status == doctor.Fail {
				return failedError{}
			}
			return nil
		},
	}
	a.settings.addDurability(cmd.Flags())
	complete(cmd, "durability", "durable", "written", "queued")
	a.settings.addWriter(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}

func (a *app) showExamined(r *doctor.Report, format string) error {
	if format == "json" {
		return printJSON(a.stdout, r)
	}
	t := newTable(a.stdout, a.stdout, column{title: "CHECK"}, column{title: "STATE"}, column{title: "DETAIL"})
	for _, c := range r.Checks {
		style := map[doctor.State]string{doctor.OK: green, doctor.Warn: yellow, doctor.Fail: red}[c.State]
		if err := t.row(text(c.Name), cell{string(c.State), style}, text(c.Detail)); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, c := range r.Checks {
		if c.Advice != "" {
			a.advise(c.Name + ": " + c.Advice)
		}
	}
	return nil
}
