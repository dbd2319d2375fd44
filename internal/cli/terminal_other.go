//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package cli

import "os"

// terminalWidth knows no terminals on this system: output is plain.
func terminalWidth(*os.File) int { return 0 }
