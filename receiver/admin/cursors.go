package admin

import (
	"context"
	"fmt"
	"net/http"
)

// ResetRequest asks that damaged cursors begin again at the first stored event.
type ResetRequest struct {
	Target string `json:"target,omitempty"` // one target; empty: all
	DryRun bool   `json:"dryRun,omitempty"` // only says which
}

// Reset says which cursors that are, or were.
type Reset struct {
	Cursors []DamagedCursor `json:"cursors"`
}

// DamagedCursor is how far a target was in a partition, which cannot be read.
type DamagedCursor struct {
	Target    string `json:"target"`
	Partition int    `json:"partition"`
}

// ResetCursors has damaged cursors begin again.
func (c *Client) ResetCursors(ctx context.Context, w Webhook, r ResetRequest) (answer Reset, err error) {
	err = c.do(ctx, http.MethodPost, w.path("/cursors/reset"), r, &answer)
	return answer, err
}

func (h *handler) resetCursors(r *http.Request, w Webhook) (any, error) {
	var request ResetRequest
	if err := readRequest(r, &request); err != nil {
		return nil, fmt.Errorf("reset cursors: %w", err)
	}
	return h.service.ResetCursors(r.Context(), w, request)
}
