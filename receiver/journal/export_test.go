package journal

import "context"

// Housekeep does what is done once a minute.
func (b *Bolt) Housekeep() error {
	return b.do(context.Background(), 0, func(t *transaction) error { return t.trim(true) })
}

// URL is where it is connected to.
func (n *NATS) URL() string { return n.options.URL }

// Disconnect cuts it off, until Reconnect.
func (n *NATS) Disconnect() {
	n.cut.Store(true)
	_ = n.conn.ForceReconnect() // which fails while it is cut off
}

// Reconnect lets it connect again.
func (n *NATS) Reconnect() { n.cut.Store(false) }
