package witness

import "testing"

// A description names a sink or is refused, never both, and the sink's name
// tells a command's first word at most.
func FuzzParseSink(f *testing.F) {
	for _, s := range []string{"", "checkpoints", "file:", "file:checkpoints", "exec:", "exec: \t", "exec:/bin/tee -a", "syslog:", "syslog:remote"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sink, err := ParseSink(s)
		if (sink == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", s, sink, err)
		}
		switch k := sink.(type) {
		case commandSink:
			if len(k) == 0 || k.Name() != "exec:"+k[0] {
				t.Fatalf("%q: %q", s, k)
			}
		case fileSink:
			if k == "" {
				t.Fatalf("%q: a file without a name", s)
			}
		}
	})
}
