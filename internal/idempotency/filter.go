package idempotency

import "encoding/binary"

const (
	// filterBits is how many bits of a filter there are for each key, and
	// filterProbes how many of them a key has: one lookup in a hundred of a key
	// that is not there then reads the run all the same.
	filterBits   = 10
	filterProbes = 6
	// filterKeys bounds the filters of one index together: 20 MB.
	filterKeys = 16 << 20
)

// filter is a Bloom filter over the hashes of a run. Nearly all keys are new,
// and without it each of them would be looked up in every run.
type filter []uint64

// newFilter makes the filter of records.
func newFilter(records []byte) filter {
	n := len(records) / recordSize
	f := make(filter, (n*filterBits+63)/64+1)
	for ; len(records) > 0; records = records[recordSize:] {
		f.each(Hash(records[:len(Hash{})]), func(word *uint64, bit uint64) bool {
			*word |= bit
			return true
		})
	}
	return f
}

// each gives the bits of a hash until more says false. The hash is even
// already: its halves are the two of double hashing.
func (f filter) each(m Hash, more func(word *uint64, bit uint64) bool) {
	a, b := binary.BigEndian.Uint64(m[:]), binary.BigEndian.Uint64(m[8:])|1
	bits := uint64(len(f)) * 64
	for range filterProbes {
		at := a % bits
		if !more(&f[at/64], 1<<(at%64)) {
			return
		}
		a += b
	}
}

// mayHave tells whether a hash may be among the records; without a filter it
// always may.
func (f filter) mayHave(m Hash) bool {
	if f == nil {
		return true
	}
	all := true
	f.each(m, func(word *uint64, bit uint64) bool {
		all = *word&bit != 0
		return all
	})
	return all
}
