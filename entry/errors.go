package entry

import (
	"bytes"
	"fmt"
	"strconv"
)

// SyntaxError says where JSON text is broken. It never holds any of the text.
type SyntaxError struct {
	// Line and Column count from 1; Column and Offset count bytes.
	Line, Column int
	Offset       int
	Reason       string
}

func (e *SyntaxError) Error() string {
	return "line " + strconv.Itoa(e.Line) + ", column " + strconv.Itoa(e.Column) + ": " + e.Reason
}

func syntaxError(src []byte, offset int, reason string) *SyntaxError {
	offset = min(offset, len(src))
	before := src[:offset]
	return &SyntaxError{
		Line:   1 + bytes.Count(before, []byte{'\n'}),
		Column: offset - bytes.LastIndexByte(before, '\n'),
		Offset: offset,
		Reason: reason,
	}
}

// FieldError says which member of an event is wrong and why. It never holds
// the value.
type FieldError struct {
	Field string // as in the line: "event_type"
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{field, fmt.Errorf(format, args...)}
}

// LineTooLongError says that an entry is longer than a line may be.
type LineTooLongError struct{ Bytes, Max int }

func (e *LineTooLongError) Error() string {
	return fmt.Sprintf("entry of %d bytes is longer than the limit of %d bytes", e.Bytes, e.Max)
}
