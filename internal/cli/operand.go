package cli

import (
	"context"
	"fmt"
	"io"
	"os"
)

// openOperand opens a file that the command line names. It may be a pipe (a
// shell's <(…)), which has to be waited for and perhaps never comes: ctx ends
// the wait.
func openOperand(ctx context.Context, name string) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	opened := make(chan result, 1)
	go func() {
		f, err := os.Open(name)
		opened <- result{f, err}
	}()
	select {
	case r := <-opened:
		return r.file, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readOperand reads a file that the command line names, "-" being stdin where
// that is given, until its end, limit bytes and one more, or the end of ctx.
func readOperand(ctx context.Context, name string, stdin io.Reader, limit int) ([]byte, error) {
	in := stdin
	if name != "-" || stdin == nil {
		f, err := openOperand(ctx, name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
		read <- result{data, err}
	}()
	select {
	case r := <-read:
		if r.err != nil {
			return nil, fmt.Errorf("read %s: %w", name, r.err)
		}
		return r.data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readSmall reads a whole small file.
func readSmall(ctx context.Context, name string, stdin io.Reader) ([]byte, error) {
	data, err := readOperand(ctx, name, stdin, maxProof)
	if err == nil && len(data) > maxProof {
		err = usagef("%s: longer than %d bytes", name, maxProof)
	}
	return data, err
}
