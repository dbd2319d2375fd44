package otlp

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// What a request holds, as far as it is kept, from either encoding
// (opentelemetry-proto 1.11, common/v1, resource/v1, trace/v1, logs/v1).

// kind is which member of an AnyValue is set.
type kind uint8

const (
	empty kind = iota
	textual
	boolean
	integer
	double
	list    // of members without a key
	mapping // of members
	binary64
	tooDeep // nested deeper than maxDepth; n is its length in bytes
)

// value is an AnyValue.
type value struct {
	text    string // textual, binary64
	members []attribute
	n       uint64 // boolean, integer, double (its bits), tooDeep
	kind    kind
}

type attribute struct {
	key   string
	value value
}

type resource struct {
	attributes []attribute
	dropped    uint32
	schema     string

	known  *named      // what of it has a place of its own
	others *genai.JSON // what has not
}

type scope struct {
	name, version string
	attributes    []attribute
	schema        string
}

// digest is of the text of a span or record, with its resource and scope, as the
// sender sent it: a request that is sent again has the same ones.
type digest [sha256.Size]byte

type span struct {
	traceID, spanID, parentID string // hex, lower case; "" if it is not one
	givenID                   string // the span id as it came, where it is none
	traceState, name          string
	flags                     uint32
	kind                      uint64
	start, end                uint64 // Unix nanoseconds
	attributes                []attribute
	droppedAttributes         uint32
	events                    []event
	droppedEvents             uint32
	links                     []link
	droppedLinks              uint32
	status                    uint64
	statusMessage             string

	resource *resource
	scope    *scope
	digest   digest
}

type event struct {
	time       uint64
	name       string
	attributes []attribute
	dropped    uint32
}

type link struct {
	traceID, spanID string
	traceState      string
	attributes      []attribute
	dropped         uint32
}

type record struct {
	time, observed    uint64
	severity          uint64
	severityText      string
	body              value
	attributes        []attribute
	droppedAttributes uint32
	traceID, spanID   string
	eventName         string

	resource *resource
	scope    *scope
	digest   digest
}

// The codes of kinds and statuses.
const (
	kindClient   = 3
	statusOK     = 1
	statusError  = 2
	severityFail = 17 // ERROR (opentelemetry-specification, logs data model)
)

var kindNames = [...]string{"unspecified", "internal", "server", "client", "producer", "consumer"}

// digester makes the digests of what is in one scope.
type digester struct {
	h    hash.Hash
	from digest // of resource and scope
}

func newDigester(parts ...[]byte) *digester {
	d := &digester{h: sha256.New()}
	d.from = d.sum(parts...)
	return d
}

func (d *digester) sum(parts ...[]byte) (sum digest) {
	d.h.Reset()
	for _, p := range parts {
		n := len(p)
		d.h.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		d.h.Write(p)
	}
	d.h.Sum(sum[:0])
	return sum
}

func (d *digester) of(text []byte) digest { return d.sum(d.from[:], text) }

// hexDigest is half of a digest: 128 bits tell any two spans apart.
func hexDigest(d digest) string { return hex.EncodeToString(d[:16]) }
