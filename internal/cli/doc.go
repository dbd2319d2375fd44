// Package cli is the command line: one file for each command, settings,
// tables and the demo. It reads arguments, the environment and files, calls
// package audit, and puts results into words; it does no work of its own on a
// trail.
//
// # Rules of speech
//
//   - Results go to stdout, everything else to stderr.
//   - An error is one line, "kaizen-audit: operation object: cause", in lower
//     case, without a full stop at its end. What to do about it is a line of
//     its own that begins with "hint: ". A warning begins with
//     "kaizen-audit: warning: ".
//   - No value of an entry is in an error. What a table shows of an entry is
//     made printable first: no control character reaches a terminal.
//   - Colour and cut-off columns are for terminals only, and colour not where
//     NO_COLOR is set. What is piped is plain and whole.
//   - Every shape that --format json gives is documented in docs/cli.md and
//     only grows.
//   - No secret is taken from the command line.
//
// # Exit codes
//
//	0  done
//	1  verification failed: damage, or a proof that proves nothing
//	2  usage
//	3  something can't be read or written
//	4  done in part; the rest is named on stderr
//	5  denied (kept for access control)
package cli
