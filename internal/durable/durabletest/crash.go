package durabletest

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sectorSize is the unit that a disk writes whole: 512 bytes at the least.
const sectorSize = 512

// Crash returns the file system as it may be found after a power failure at
// this moment. Everything synced is there. With a nil rng everything else is
// lost; otherwise rng decides:
//
//   - of a directory's unsynced changes some first ones were done, in their
//     order, the others not; every directory for itself;
//   - a file's size is any between the smallest and the largest that it had
//     since its last Sync;
//   - every unsynced page, or every 512-byte sector of it, is as it was synced,
//     as it was written last, or zeros where the file had been shorter;
//   - a file's changed permission bits are the new or the old.
//
// No lock is held and nothing is reserved in the new file system. The old one
// can be used further and the two know nothing of each other. One seed gives
// one result for one history.
//
// It does not show contents between the last synced and the last written: a
// test that needs them crashes at every write.
func (m *Mem) Crash(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{rng: rng, found: make(map[*inode]*inode)}
	after := &Mem{capacity: m.capacity, root: c.node(m.root)}
	for _, n := range c.found {
		if n.file != nil {
			after.used += n.file.charged()
		}
	}
	return after
}

type crash struct {
	rng   *rand.Rand
	found map[*inode]*inode // hard links stay links
}

// upTo is a number from 0 to n, the 0 that loses everything without a rng.
func (c *crash) upTo(n int64) int64 {
	if c.rng == nil || n == 0 {
		return 0
	}
	return c.rng.Int64N(n + 1)
}

func (c *crash) node(old *inode) *inode {
	if n := c.found[old]; n != nil {
		return n
	}
	n := &inode{mode: old.diskMode, mtime: old.mtime}
	c.found[old] = n
	if old.mode != old.diskMode && c.upTo(1) == 1 {
		n.mode = old.mode
	}
	n.diskMode = n.mode
	if old.file != nil {
		n.file = c.content(old.file)
		return n
	}
	names := maps.Clone(old.dir.disk)
	for _, ch := range old.dir.pending[:c.upTo(int64(len(old.dir.pending)))] {
		ch.apply(names)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) { // one order, one outcome
		child := c.node(names[name])
		child.links++
		names[name] = child
	}
	n.dir = &directory{names: names, disk: maps.Clone(names)}
	return n
}

func (c *crash) content(old *content) *content {
	size := old.diskSize
	switch c.upTo(3) {
	case 1:
		size = old.size
	case 2, 3:
		size = old.low + c.upTo(old.high-old.low)
	}
	n := &content{size: size, diskSize: size, low: size, high: size,
		pages: make(map[int64]*page, len(old.pages))}
	var unsynced []int64
	for i, p := range old.pages {
		if p.dirty || p.lost {
			unsynced = append(unsynced, i)
		} else {
			n.put(i, p.disk)
		}
	}
	slices.Sort(unsynced)
	for _, i := range unsynced {
		n.put(i, c.page(old, i))
	}
	return n
}

// page decides what an unsynced page holds.
func (c *crash) page(old *content, i int64) []byte {
	p := old.pages[i]
	if c.rng == nil {
		return p.disk
	}
	unit := []int{sectorSize, pageSize}[c.rng.IntN(2)]
	b := make([]byte, pageSize)
	for at := 0; at < pageSize; at += unit {
		ways := 2
		if old.low <= i*pageSize+int64(at) {
			ways = 3
		}
		var from []byte
		switch c.rng.IntN(ways) {
		case 0:
			from = p.disk
		case 1:
			from = p.now
		}
		if at < len(from) {
			copy(b[at:at+unit], from[at:])
		}
	}
	return b
}

// put sets a page of a file that is all on the disk.
func (c *content) put(i int64, b []byte) {
	b = b[:min(int64(len(b)), max(0, c.size-i*pageSize))]
	if len(b) > 0 {
		b = slices.Clip(b) // the room behind is the old file system's
		c.pages[i] = &page{now: b, disk: b, shared: true}
	}
}
