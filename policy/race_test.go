//go:build race

package policy_test

// underRace: the race detector allocates too.
const underRace = true
