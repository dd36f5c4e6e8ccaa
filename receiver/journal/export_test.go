package journal

import "context"

// Housekeep does what is done once a minute.
func (b *Bolt) Housekeep() error {
	return b.do(context.Background(), 0, func(t *transaction) error { return t.trim(true) })
}
