package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

func (a *app) discloseCommand() *cobra.Command {
	var fields []string
	var all bool
	var out string
	cmd := &cobra.Command{
		Use:   "disclose INDEX (--field POINTER… | --all) --out FILE",
		Short: "Show one field of one entry, with a proof",
		Long: `Writes one entry with its proof, and the keys of those sealed fields that are to
be seen: --field names one by its JSON pointer (/inputs, /metadata/user_id). All
others stay sealed. check-proof, or kaizen_audit/check.py of the Python client,
checks it with the trail's vkey and opens the fields.

What was not sealed when it was recorded can't be withheld: it goes out with the
line. --all opens every sealed field; it is the only way for an entry in which
nothing is sealed, whose whole line goes out.

FILE must not be there; it can be read by you alone. The disclosure is recorded.`,
		Example: `  kaizen-audit disclose 41 --field /inputs --out inputs-of-41.json
  kaizen-audit disclose 41 --field /outputs --field /error --out 41.json
  kaizen-audit check-proof 41.json --key "$VKEY"`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return usagef("one index is needed")
			case (len(fields) == 0) == !all:
				return usagef("--field or --all is needed, not both")
			case out == "":
				return usagef("--out is needed: the file to write, which must not be there")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 63)
			if err != nil {
				return usagef("%q is no index", args[0])
			}
			index := int64(n)
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer trail.Close()
			if all {
				if fields, err = trail.SealedFields(cmd.Context(), index); err != nil {
					return err
				}
			}
			var text []byte
			err = newPrivateFile(cmd.Context(), out, func(w io.Writer) error {
				if text, err = trail.Disclose(cmd.Context(), index, fields...); err == nil {
					_, err = w.Write(text)
				}
				return err
			})
			if err != nil {
				return err
			}
			d, err := audit.CheckDisclosure(text, trail.VKey())
			if err != nil {
				return err
			}
			return a.showDisclosed(d, fields)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&fields, "field", nil, "a sealed field to open, as a JSON pointer (repeatable)")
	f.BoolVar(&all, "all", false, "open every sealed field")
	f.StringVar(&out, "out", "", "the file to write; it must not be there")
	a.addUnrecorded(cmd)
	return cmd
}

// showDisclosed says what a disclosure shows, without the values.
func (a *app) showDisclosed(d audit.Disclosed, fields []string) error {
	lines := [][2]string{{"Disclosed", fmt.Sprintf("entry %d", d.Index)}, {"Opened", "no field: nothing in this line is sealed, or all of it stays so"}}
	if len(fields) > 0 {
		lines[1][1] = report.Printable(strings.Join(fields, ", "))
	}
	if len(d.Hidden) > 0 {
		lines = append(lines, [2]string{"Sealed", report.Printable(strings.Join(d.Hidden, ", "))})
	}
	return facts(a.stdout, append(lines, [2]string{"Size", fmt.Sprint(d.Size)})...)
}
