package agent

import (
	"context"
	"slices"
	"sync"

	"github.com/cloudwego/eino/schema"
)

// Memory keeps conversations by their session. It is safe for concurrent use, and
// keeps no message that it was given or gives.
type Memory interface {
	// Load gives a session's messages, oldest first; none where there is no
	// such session.
	Load(ctx context.Context, session string) ([]*schema.Message, error)
	// Save adds messages to a session.
	Save(ctx context.Context, session string, messages ...*schema.Message) error
	// Delete forgets a session.
	Delete(ctx context.Context, session string) error
}

// BufferMemory keeps conversations in the process.
type BufferMemory struct {
	maxTurns int

	mu       sync.Mutex
	sessions map[string][]schema.Message
}

// NewBufferMemory makes a memory of the last maxTurns questions of each session,
// with their answers; 0 means all.
func NewBufferMemory(maxTurns int) *BufferMemory {
	return &BufferMemory{maxTurns: maxTurns, sessions: map[string][]schema.Message{}}
}

// Load gives a session's messages.
func (m *BufferMemory) Load(_ context.Context, session string) (all []*schema.Message, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.sessions[session] {
		all = append(all, &msg)
	}
	return all, nil
}

// Save adds messages to a session.
func (m *BufferMemory) Save(_ context.Context, session string, messages ...*schema.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.sessions[session]
	for _, msg := range messages {
		kept = append(kept, *msg)
	}
	turns := 0
	for i := len(kept) - 1; i >= 0 && m.maxTurns > 0; i-- {
		if kept[i].Role == schema.User {
			turns++
		}
		if turns == m.maxTurns {
			kept = slices.Clone(kept[i:])
			break
		}
	}
	m.sessions[session] = kept
	return nil
}

// Delete forgets a session.
func (m *BufferMemory) Delete(_ context.Context, session string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, session)
	return nil
}
