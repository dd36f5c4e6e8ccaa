package journal

import (
	"iter"
	"slices"
)

// Range is a run of sequence numbers, both ends included.
type Range struct{ From, To uint64 }

// Ranges are sequence numbers as runs, in order, with gaps between them.
type Ranges []Range

// find is the index of the first range that does not end before seq.
func (r Ranges) find(seq uint64) int {
	i, _ := slices.BinarySearchFunc(r, seq, func(r Range, seq uint64) int {
		switch {
		case r.To < seq:
			return -1
		case r.To > seq:
			return 1
		}
		return 0
	})
	return i
}

// Has is whether a number is among them.
func (r Ranges) Has(seq uint64) bool {
	i := r.find(seq)
	return i < len(r) && r[i].From <= seq
}

// Add adds a number, and says whether it was not among them.
func (r *Ranges) Add(seq uint64) bool {
	if r.Has(seq) {
		return false
	}
	all := *r
	i := all.find(seq)
	joinsLeft := i > 0 && all[i-1].To+1 == seq
	joinsRight := i < len(all) && all[i].From == seq+1
	switch {
	case joinsLeft && joinsRight:
		all[i-1].To = all[i].To
		all = slices.Delete(all, i, i+1)
	case joinsLeft:
		all[i-1].To = seq
	case joinsRight:
		all[i].From = seq
	default:
		all = slices.Insert(all, i, Range{From: seq, To: seq})
	}
	*r = all
	return true
}

// AddAll adds the numbers from one to another, both included.
func (r *Ranges) AddAll(from, to uint64) {
	if from > to {
		return
	}
	all := *r
	begin := all.find(max(from, 1) - 1) // one that touches from the left counts
	end := begin
	for end < len(all) && all[end].From <= to+1 {
		from, to = min(from, all[end].From), max(to, all[end].To)
		end++
	}
	*r = slices.Replace(all, begin, end, Range{From: from, To: to})
}

// Remove takes a number out, and says whether it was among them.
func (r *Ranges) Remove(seq uint64) bool {
	if !r.Has(seq) {
		return false
	}
	all := *r
	i := all.find(seq)
	switch one := all[i]; {
	case one.From == one.To:
		all = slices.Delete(all, i, i+1)
	case one.From == seq:
		all[i].From++
	case one.To == seq:
		all[i].To--
	default:
		all[i].To = seq - 1
		all = slices.Insert(all, i+1, Range{From: seq + 1, To: one.To})
	}
	*r = all
	return true
}

// Len is how many numbers there are.
func (r Ranges) Len() int64 {
	var n int64
	for _, one := range r {
		n += int64(one.To - one.From + 1)
	}
	return n
}

// All are the numbers, in order.
func (r Ranges) All() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, one := range r {
			for seq := one.From; ; seq++ {
				if !yield(seq) {
					return
				}
				if seq == one.To {
					break
				}
			}
		}
	}
}
