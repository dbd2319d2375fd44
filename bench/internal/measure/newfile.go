package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// slowNewFile is far above what a new file costs on a local disk at rest: 12
// to 45 µs on a fresh ext4 here.
const slowNewFile = 100 * time.Microsecond

// NewFile is what making a small file below dir costs in CPU time, over a
// thousand files in new directories, which stay. A trail makes two for every
// 256 entries, and ext4 passes over the inodes that were freed in the last
// minutes one by one: after tests that removed many files it cost up to 600 µs
// here, half the machine at full rate, and nothing to whoever writes one file.
func NewFile(dir string) (time.Duration, error) {
	const dirs, files = 8, 128
	start, _ := cpuTime()
	for d := range dirs {
		in := filepath.Join(dir, fmt.Sprintf("new-%d", d))
		if err := os.Mkdir(in, 0o700); err != nil {
			return 0, err
		}
		for i := range files {
			if err := os.WriteFile(filepath.Join(in, fmt.Sprint(i)), make([]byte, 4096), 0o600); err != nil {
				return 0, err
			}
		}
	}
	end, _ := cpuTime()
	return (end - start) / (dirs * files), nil
}

// NewFileText says what NewFile found, and what to do about it.
func NewFileText(cost time.Duration) string {
	text := fmt.Sprintf("A new file costs %d µs of CPU here", cost.Microseconds())
	if cost > slowNewFile {
		text += ": slow, which holds back who makes files. Where many were removed lately, wait five minutes, or choose another disk (--dir)"
	}
	return text + ".\n"
}
