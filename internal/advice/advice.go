// Package advice puts what to do about an error beside what happened. The text
// of such an error has both, for programs that print errors as they are; the
// command line shows the advice on a line of its own.
package advice

import (
	"errors"
	"fmt"
	"strings"
)

type advised struct {
	error
	advice string
}

func (e advised) Error() string { return e.error.Error() + "; " + e.advice }
func (e advised) Unwrap() error { return e.error }

// For is err with what to do about it.
func For(err error, format string, args ...any) error {
	return advised{err, fmt.Sprintf(format, args...)}
}

// Split parts the text of an error into what happened and what to do; advice
// is empty where there is none.
func Split(err error) (text, advice string) {
	text = err.Error()
	var a advised
	if errors.As(err, &a) {
		return strings.Replace(text, "; "+a.advice, "", 1), a.advice
	}
	return text, ""
}

// Quote spells s so that a shell reads it as one word.
func Quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
