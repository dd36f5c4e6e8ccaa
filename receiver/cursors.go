package receiver

import (
	"context"
	"fmt"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

// ResetCursors implements admin.Service.
func (r *Receiver) ResetCursors(ctx context.Context, id admin.Webhook, request admin.ResetRequest) (admin.Reset, error) {
	w, err := r.find(id)
	if err != nil {
		return admin.Reset{}, err
	}
	if w.shared == nil {
		return admin.Reset{}, fmt.Errorf("%w: %s has an embedded journal, whose cursors are part of its file: stop the receiver and run pbxhook journal check on it", admin.ErrInvalid, id)
	}
	cursors, err := w.shared.ResetDamagedCursors(ctx, request.Target, request.DryRun)
	if err != nil {
		return admin.Reset{}, fmt.Errorf("reset cursors of %s: %w", id, err)
	}
	answer := admin.Reset{Cursors: []admin.DamagedCursor{}}
	for _, c := range cursors {
		answer.Cursors = append(answer.Cursors, admin.DamagedCursor{Target: c.Target, Partition: c.Partition})
		if !request.DryRun {
			w.log.Warn("a damaged cursor was reset: its target gets all that is stored in the partition", "target", c.Target, "partition", c.Partition)
		}
	}
	return answer, nil
}
