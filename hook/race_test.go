//go:build race

package hook

// underRace: the race detector allocates too.
const underRace = true
