package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

func (a *app) configCommand() *cobra.Command {
	config := &cobra.Command{
		Use:   "config",
		Short: "Check the settings",
		Long:  `What can be said about the settings: see config check.`,
		Example: `  kaizen-audit config check
  kaizen-audit config check /etc/kaizen-audit.yaml --format json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("which one? there is check")
			}
			return noSuchCommand(cmd, args[0])
		},
	}
	format := newChoice("text", "json")
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check the configuration file, and show where each setting comes from",
		Long: `Checks the configuration file (FILE, else --config, else KAIZEN_AUDIT_CONFIG):
unknown sections and keys, wrong types, values that can't be. All problems are
named with line and column, and the exit code is then 2. After that it shows
every setting as a command would take it, and where it comes from: flag,
environment, file or default. Commands in checkpoint_to are cut to their first
word: they may hold a secret.`,
		Example: `  kaizen-audit config check
  kaizen-audit config check /etc/kaizen-audit.yaml --format json`,
		Args: cobra.MaximumNArgs(1),
		// What other commands refuse is what this one is to tell.
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.started = true
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.checkConfig(cmd.Context(), cmd.Flags(), args)
			if err != nil {
				return err
			}
			return a.showConfig(c, format.value)
		},
	}
	a.settings.addWriter(check.Flags())
	a.settings.addDurability(check.Flags())
	addFormat(check, format)
	config.AddCommand(check)
	return config
}

// configCheck is what config check found. Its JSON shape only grows.
type configCheck struct {
	File     string          `json:"file"`   // "" where there is none
	Status   string          `json:"status"` // "ok" or "invalid"
	Problems []configProblem `json:"problems"`
	// Environment are variables that are wrong or no setting of ours.
	Environment []variableProblem `json:"environment"`
	Settings    []effective       `json:"settings"`
}

type variableProblem struct {
	Variable string `json:"variable"`
	Problem  string `json:"problem"`
	// Ignored variables are warned of and change nothing.
	Ignored bool `json:"ignored"`
}

// effective is a setting as a command takes it.
type effective struct {
	Name string `json:"name"` // as in the file
	// Value is a string, for checkpoint_to a list of them.
	Value any    `json:"value"`
	From  string `json:"from"` // flag, environment, file, default
	// Source is the flag, the variable, or FILE:LINE:COLUMN.
	Source string `json:"source,omitempty"`
}

// checkConfig finds where every setting comes from, and what is wrong.
func (a *app) checkConfig(ctx context.Context, flags *pflag.FlagSet, args []string) (*configCheck, error) {
	c := &configCheck{Status: "ok", Problems: []configProblem{}, Environment: []variableProblem{}, Settings: []effective{}}
	for _, name := range unknownEnvironment(os.Environ()) {
		c.Environment = append(c.Environment, variableProblem{name, "is no setting of this program", true})
	}
	if flags.Changed("log") && a.settings.log == "" {
		return nil, usagef("--log is empty")
	}
	from := map[string]effective{} // what the flags have not left to others
	flags.Visit(func(f *pflag.Flag) { from[f.Name] = effective{From: "flag", Source: "--" + f.Name} })
	for _, name := range settingFlags {
		v := os.Getenv(envName(name))
		if v == "" || from[name].From != "" {
			continue
		}
		for _, v := range listItems(name, v) {
			if err := flags.Lookup(name).Value.Set(v); err != nil {
				c.Environment = append(c.Environment, variableProblem{envName(name), err.Error(), false})
				c.Status = "invalid"
			}
		}
		from[name] = effective{From: "environment", Source: envName(name)}
	}
	if len(args) > 0 {
		if from["config"].From == "flag" && a.settings.config != args[0] {
			return nil, usagef("--config or FILE, not both")
		}
		a.settings.config, from["config"] = args[0], effective{From: "flag", Source: "FILE"}
	}
	if c.File = a.settings.config; c.File != "" {
		data, err := loadConfig(ctx, c.File)
		if err != nil {
			return nil, err
		}
		scan := scanConfig(data)
		values := scan.values
		c.Problems = append(append(c.Problems, scan.wrong...), checkValues(values)...)
		slices.SortStableFunc(c.Problems, func(a, b configProblem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		for _, v := range values {
			if f := from[v.flag].From; f == "" || f == "file" {
				if flags.Lookup(v.flag).Value.Set(v.value) == nil && f == "" {
					from[v.flag] = effective{From: "file", Source: fmt.Sprintf("%s:%d:%d", c.File, v.line, v.column)}
				}
			}
		}
	}
	if len(c.Problems) > 0 {
		c.Status = "invalid"
	}
	for _, name := range settingFlags {
		e := from[name]
		if e.From == "" {
			e.From = "default"
		}
		e.Name, e.Value = configKey(name), a.settings.shown(flags.Lookup(name))
		c.Settings = append(c.Settings, e)
	}
	return c, nil
}

// shown is a setting as config check shows it.
func (s *settings) shown(f *pflag.Flag) any {
	size := func(b byteSize, or int64) string {
		if b.bytes > 0 {
			or = b.bytes
		}
		return exactBytes(or)
	}
	switch f.Name {
	case "segment-bytes":
		return size(s.segmentBytes, audit.DefaultSegmentBytes)
	case "max-line":
		return size(s.maxLine, entry.DefaultMaxLine)
	case "checkpoint-to":
		to := []string{}
		for _, t := range s.checkpointTo {
			to = append(to, withoutSecret(t))
		}
		return to
	}
	return f.Value.String()
}

// exactBytes spells a number of bytes as a setting takes it.
func exactBytes(n int64) string {
	for _, u := range byteUnits {
		if n%(1<<u.shift) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// withoutSecret cuts a command to its first word: what follows may be a token
// or a password, and so may a variable that is set before it.
func withoutSecret(to string) string {
	command, ok := strings.CutPrefix(to, "exec:")
	if !ok {
		return to
	}
	words := strings.Fields(command)
	switch {
	case len(words) == 0 || strings.ContainsAny(words[0], "=$`\"'"):
		return "exec:…"
	case len(words) == 1:
		return to
	}
	return "exec:" + words[0] + " …"
}

func (a *app) showConfig(c *configCheck, format string) error {
	if format == "json" {
		if err := printJSON(a.stdout, c); err != nil {
			return err
		}
	} else if err := a.showConfigText(c); err != nil {
		return err
	}
	wrong := len(c.Problems)
	for _, v := range c.Environment {
		if !v.Ignored {
			wrong++
		}
	}
	switch {
	case wrong == 0:
		return nil
	case wrong == 1:
		return configError("there is a problem")
	}
	return configError("there are %d problems", wrong)
}

func (a *app) showConfigText(c *configCheck) error {
	for _, v := range c.Environment {
		if v.Ignored {
			a.warn(fmt.Errorf("environment: %s %s", report.Printable(v.Variable), v.Problem))
		}
	}
	var lines strings.Builder
	for _, p := range c.Problems {
		lines.WriteString(report.Printable(c.File))
		if p.Line > 0 {
			fmt.Fprintf(&lines, ":%d", p.Line)
		}
		if p.Column > 0 {
			fmt.Fprintf(&lines, ":%d", p.Column)
		}
		p.Line = 0
		lines.WriteString(": " + report.Printable(p.Error()) + "\n")
	}
	for _, v := range c.Environment {
		if !v.Ignored {
			lines.WriteString("environment " + v.Variable + ": " + report.Printable(v.Problem) + "\n")
		}
	}
	if _, err := a.stdout.Write([]byte(lines.String())); err != nil {
		return err
	}
	t := newTable(a.stdout, a.stdout, column{title: "SETTING"}, column{title: "VALUE", least: 12}, column{title: "FROM"}, column{title: "SOURCE", least: 8})
	for _, s := range c.Settings {
		value := ""
		switch v := s.Value.(type) {
		case string:
			value = v
		case []string:
			value = strings.Join(v, ", ")
		}
		if value == "" {
			value = "-"
		}
		if err := t.row(text(s.Name), text(value), text(s.From), text(s.Source)); err != nil {
			return err
		}
	}
	return t.flush()
}
