//go:build !linux

package journal

func yieldProcessor() {}
