package dispatch

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// queue holds lanes, first in, first out.
type queue []*lane

func (q *queue) push(l *lane) { *q = append(*q, l) }

func (q *queue) pop() *lane {
	l := (*q)[0]
	(*q)[0] = nil
	*q = (*q)[1:]
	return l
}

// popNewest takes out the lane that came last.
func (q *queue) popNewest() *lane {
	last := len(*q) - 1
	l := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return l
}

// waiting holds lanes whose head must wait, soonest first.
type waiting []*lane

func (w *waiting) add(l *lane) { heap.Push(w, l) }

// due takes out a lane whose time has come, or returns nil.
func (w *waiting) due(now time.Time) *lane {
	if len(*w) == 0 || (*w)[0].due.After(now) {
		return nil
	}
	return heap.Pop(w).(*lane)
}

// remove takes out a lane.
func (w *waiting) remove(l *lane) { heap.Remove(w, slices.Index(*w, l)) }

// blamed takes out the lanes that wait because the target was unavailable, the oldest event first.
func (w *waiting) blamed() []*lane {
	var out []*lane
	kept := (*w)[:0]
	for _, l := range *w {
		if l.blamed {
			out = append(out, l)
		} else {
			kept = append(kept, l)
		}
	}
	clear((*w)[len(kept):])
	*w = kept
	heap.Init(w)
	slices.SortFunc(out, func(a, b *lane) int { return cmp.Compare(a.seqs[0], b.seqs[0]) })
	return out
}

// Len implements heap.Interface.
func (w waiting) Len() int { return len(w) }

// Less implements heap.Interface.
func (w waiting) Less(i, j int) bool { return w[i].due.Before(w[j].due) }

// Swap implements heap.Interface.
func (w waiting) Swap(i, j int) { w[i], w[j] = w[j], w[i] }

// Push implements heap.Interface.
func (w *waiting) Push(x any) { *w = append(*w, x.(*lane)) }

// Pop implements heap.Interface.
func (w *waiting) Pop() any {
	last := len(*w) - 1
	l := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return l
}
