package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Sink takes checkpoints.
type Sink interface {
	// Send hands over a signed checkpoint; it returns once the other side
	// has it.
	Send(ctx context.Context, checkpoint []byte) error
	// Name says where they go, without secrets.
	Name() string
}

// commandTimeout bounds a command that takes a checkpoint.
const commandTimeout = 10 * time.Second

// ParseSink makes a sink of its description: a file's path, "exec:COMMAND" or
// "syslog:".
func ParseSink(s string) (Sink, error) {
	if command, ok := strings.CutPrefix(s, "exec:"); ok {
		if words := strings.Fields(command); len(words) > 0 {
			return commandSink(words), nil
		}
		return nil, errors.New("exec: needs a command")
	}
	if strings.HasPrefix(s, "syslog:") {
		if s != "syslog:" {
			return nil, errors.New("syslog: takes nothing after the colon")
		}
		return syslogSink{}, nil
	}
	name := strings.TrimPrefix(s, "file:")
	if name == "" {
		return nil, errors.New("a file without a name")
	}
	if scheme, _, ok := strings.Cut(name, "://"); ok && name == s {
		return nil, fmt.Errorf("there is none of scheme %q", scheme)
	}
	return fileSink(name), nil
}

// fileSink appends checkpoints to a file, an empty line between them.
type fileSink string

func (f fileSink) Name() string { return "file" }

func (f fileSink) Send(_ context.Context, checkpoint []byte) error {
	out, err := durable.OS.OpenFile(string(f), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(append(bytes.Clone(checkpoint), '\n'))
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// commandSink gives each checkpoint to a command's standard input. The words
// are split at spaces; no shell is asked.
type commandSink []string

func (c commandSink) Name() string { return "exec:" + c[0] }

func (c commandSink) Send(ctx context.Context, checkpoint []byte) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c[0], c[1:]...)
	cmd.Stdin = bytes.NewReader(checkpoint)
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", c[0], err)
	}
	return nil
}
