// Package report makes the documented compliance report of a trail, as text
// and as JSON.
//
//	b := report.New(report.Meta{Generated: time.Now(), RetentionDays: 2555})
//	for e := range entries { // all of the trail, by index
//		b.Add(e)
//	}
//	err := b.Report().WriteText(w)
//
// It takes one pass: what is held is a few counters and three operations for
// each agent, however long the trail. What it says about encryption is what
// the lines say, not what an option says. It does not verify anything; the
// checkpoint that it names is the one that was given to it.
//
// Names come from entries, so every one is made [Printable] before it is part
// of the text. A Builder is not safe for concurrent use; a Report does not
// change.
package report
