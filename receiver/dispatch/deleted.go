package dispatch

import "github.com/pbxhook/pbxhook/receiver/journal"

// countDeleted counts the events in lanes that somebody has deleted from the journal, also those that are not attempted
// now because the target is down or suspended. They leave their lanes when their turn comes.
func (w *work) countDeleted() {
	part, ok := w.journal.(journal.Expiring)
	if !ok {
		return
	}
	first := part.First()
	if first <= w.first {
		return
	}
	counted := w.first
	w.first = first
	if w.queued == 0 || w.progress.floor+1 >= first {
		return
	}
	for _, l := range w.lanes {
		for _, seq := range l.seqs {
			if seq >= counted && seq < first && !w.progress.has(seq) {
				w.lost++
				w.progress.dirty = true
			}
		}
	}
}
