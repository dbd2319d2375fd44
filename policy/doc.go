// Package policy decides what may be written into a trail: it masks, drops,
// hashes, marks and refuses values of an event, before anything is written.
package policy
