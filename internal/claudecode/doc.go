// Package claudecode maps what Claude Code tells its hooks, and what it keeps
// in its session files, to audit events. docs/coding-agents.md has the tables.
//
// A hook is one JSON object on standard input: the documented members that all
// events share, and those of one event, named by hook_event_name
// (https://code.claude.com/docs/en/hooks). Nothing of it is dropped: what is no
// member of an entry becomes metadata or inputs, an event that is not known
// here is kept under its name, and what is no JSON at all is handed on as it
// is, so that whoever records it keeps the fact ([entry.KeepFact]).
//
// A tool call is begun by one hook and answered by another, in two processes:
// what was begun waits in a small file in between ([Pending]).
//
// Mapping is pure; only Pending touches files. The functions are safe for
// concurrent use, also by several processes.
package claudecode
