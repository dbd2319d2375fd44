// Package export makes what is handed out of a trail: one person's data with
// everything that its receiver needs to check it (docs/subject-access.md), and
// disclosures of single fields (docs/format-sealing.md §6.8).
//
// What is always true:
//
//  1. A sealed field of which the person is no subject leaves sealed.
//  2. What is another person's and stands in clear is masked, and then neither the
//     line's digest, nor its proof, nor its random identifiers go out: the tree is
//     public, and a digest beside a masked number would let it be guessed.
//  3. An entry that goes out with a proof is shown exactly as the proof has it.
//
// It reads no trail: callers give it entries, and what opens their fields.
package export
