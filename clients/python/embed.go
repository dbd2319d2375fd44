// Package python gives Go the one file of the Python client that travels alone:
// the receiver's checker. There is no second copy of it.
package python

import _ "embed"

// Checker is kaizen_audit/check.py, which checks exports and disclosures with
// Python's standard library alone.
//
//go:embed kaizen_audit/check.py
var Checker []byte
