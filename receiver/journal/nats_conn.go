package journal

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

const (
	// silentTime is how long the stream's leader may be silent before another server of the pool is tried: longer than
	// NATS takes to choose another leader (4 to 9 s). The one that this receiver is connected to may be cut off from its
	// peers, while these are well.
	silentTime = 10 * time.Second
	// switchPause is between two tries.
	switchPause = 10 * time.Second
)

// link is a connection to NATS. It is made again where it ended for good.
type link struct {
	conn *nats.Conn
	js   jetstream.JetStream
}

func (n *NATS) conn() *nats.Conn        { return n.link.Load().conn }
func (n *NATS) js() jetstream.JetStream { return n.link.Load().js }

// connect makes a connection, which need not be there at once.
func (n *NATS) connect() error {
	options, err := n.connectOptions()
	if err != nil {
		return err
	}
	conn, err := nats.Connect(n.options.URL, options...)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", plainNATS(err))
	}
	js, err := jetstream.NewWithAPIPrefix(conn, n.api, jetstream.WithDefaultTimeout(natsTimeout))
	if err != nil {
		conn.Close()
		return fmt.Errorf("use JetStream: %w", plainNATS(err))
	}
	n.link.Store(&link{conn, js})
	return nil
}

// reopen connects again where the connection has ended for good, which takes with it all that was made over it.
func (n *NATS) reopen() error {
	if !n.conn().IsClosed() {
		return nil
	}
	n.startOver("the connection to NATS has ended, and is made again")
	n.mu.Lock()
	n.stream, n.kv, n.letters, n.leases = nil, nil, nil, nil
	n.mu.Unlock()
	return n.connect()
}

// closed wakes who opens the connection again.
func (n *NATS) closed(conn *nats.Conn) {
	if n.ctx.Err() != nil {
		return // it was ended on purpose
	}
	n.options.Log.Error("the connection to NATS has ended", "error", because(conn.LastError()))
	n.signal()
}

// signal has the stream be set up again.
func (n *NATS) signal() {
	select {
	case n.doubt <- struct{}{}:
	default: // it is woken already
	}
}

// switchServer connects to another server of the pool where the stream's leader has been silent for too long.
func (n *NATS) switchServer() {
	n.mu.Lock()
	silent := min(time.Since(n.looked), time.Since(n.switched))
	due := silent >= max(silentTime, switchPause)
	if due {
		n.switched = time.Now()
	}
	n.mu.Unlock()
	conn := n.conn()
	if !due || !conn.IsConnected() || len(conn.Servers()) < 2 {
		return
	}
	n.options.Log.Warn("the stream's leader is silent; another NATS server is tried", "server", conn.ConnectedServerName(), "silentFor", silent.Round(time.Second))
	if err := conn.ForceReconnect(); err != nil {
		n.options.Log.Warn("another NATS server cannot be tried", "error", plainNATS(err))
	}
}

// CutOff reports whether the server that this receiver is connected to appears to be cut off from its peers, and no
// better one could be reached: the stream's leader has been silent for longer than an election takes, and publishes
// fail. It is false where no server is reached, or there is only one.
func (n *NATS) CutOff() bool {
	link := n.link.Load()
	if link == nil || !link.conn.IsConnected() || len(link.conn.Servers()) < 2 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.silent()
}

// silent reports whether neither a look nor a publish is answered for longer than an election takes; n.mu is held.
func (n *NATS) silent() bool {
	f := n.failing[publishing]
	return f != nil && time.Since(n.heard) > electionTime && time.Since(f.last) < staleTime
}

// plainNATS is an error without the servers' addresses, which may carry a password.
func plainNATS(err error) error {
	if strings.Contains(err.Error(), "@") {
		return errors.New("a connection to NATS could not be made")
	}
	return err
}

func (n *NATS) connectOptions() ([]nats.Option, error) {
	o := &n.options
	all := []nats.Option{
		nats.Name("pbxhook " + o.Namespace + "/" + o.Webhook + " " + o.Receiver),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(natsRetry), nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(), // else two errors of one server end it for good
		nats.Timeout(natsTimeout), nats.SetCustomDialer(n), nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.SyncQueueLen(2 * trimBatch), // for the answers to one request, which is made for each: 512 KiB by default
		nats.FlusherTimeout(sendTime),    // who writes to a server that reads nothing more holds up all others
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Log.Warn("NATS is not connected", "error", plainNATS(err))
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { o.Log.Info("NATS is connected again", "server", c.ConnectedServerName()) }),
		nats.ClosedHandler(n.closed),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { n.hearError(err) }),
	}
	switch {
	case len(o.Creds) > 0:
		all = append(all, nats.UserCredentialBytes(o.Creds))
	case o.NKey != "":
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(o.NKey)))
		if err != nil {
			return nil, errors.New("expected an NKey's seed (SU…)") // err may show it
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, errors.New("expected a user's NKey seed (SU…)")
		}
		all = append(all, nats.Nkey(public, pair.Sign))
	case o.Token != "":
		all = append(all, nats.Token(o.Token))
	case o.User != "":
		all = append(all, nats.UserInfo(o.User, o.Password))
	}
	if o.TLS != nil {
		all = append(all, nats.Secure(o.TLS))
	}
	return all, nil
}

// Dial implements nats.CustomDialer.
func (n *NATS) Dial(network, address string) (net.Conn, error) {
	if n.cut.Load() {
		return nil, errors.New("cut off")
	}
	dialer := net.Dialer{Timeout: natsTimeout, ControlContext: n.options.Guard}
	conn, err := dialer.Dial(network, address)
	n.dialled.Store(&err)
	return conn, err
}

// notReached says why no server is reached: what the last one that was dialled said, without its address, which changes
// with every attempt where there are several; or what came after.
func (n *NATS) notReached() error {
	cause := n.conn().LastError()
	if last := n.dialled.Load(); last != nil && *last != nil {
		cause = *last
	}
	if op := (*net.OpError)(nil); errors.As(cause, &op) {
		cause = op.Err
	}
	return fmt.Errorf("NATS is not reached%s", because(cause))
}
