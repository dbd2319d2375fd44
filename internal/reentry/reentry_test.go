package reentry

import "testing"

// The mark is seen however deep below it, and nowhere else.
func TestGuarded(t *testing.T) {
	if Guarded() {
		t.Error("guarded by nobody")
	}
	for _, levels := range []int{0, 10, 500} {
		Guard(func() {
			if !below(levels) {
				t.Errorf("%d calls below the mark it is not seen", levels)
			}
			there := make(chan bool)
			go func() { there <- Guarded() }()
			if <-there {
				t.Error("another goroutine is guarded")
			}
		})
	}
	if Guarded() {
		t.Error("guarded still")
	}
}

//go:noinline
func below(levels int) bool {
	if levels > 0 {
		return below(levels-1) && levels > 0
	}
	return Guarded()
}

// Calling through the mark costs no memory.
func TestGuardDoesNotAllocate(t *testing.T) {
	n := 0
	if got := testing.AllocsPerRun(100, func() { Guard(func() { n++ }) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
	if got := testing.AllocsPerRun(100, func() { Guarded() }); got != 0 {
		t.Errorf("%v allocations to look", got)
	}
}

func BenchmarkGuarded(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		below(20)
	}
}
