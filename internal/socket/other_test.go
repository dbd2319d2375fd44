//go:build !linux

package socket_test

const isLinux = false
