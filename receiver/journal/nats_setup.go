package journal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// NATSOptions of a journal in JetStream.
type NATSOptions struct {
	Namespace, Webhook   string // whose it is: they make its names
	URL                  string // of one or more servers, separated by commas
	Account, Domain      string // of JetStream; empty: the connection's own
	Replicas             int
	MaxBytes             int64
	Retention            time.Duration // of delivered events
	User, Password       string
	Token                string
	NKey                 string // seed
	Creds                []byte // a creds file: JWT and seed
	TLS                  *tls.Config
	Lacking              error  // why the servers cannot be connected to: something is missing that may come yet
	Receiver             string // name of this receiver, for people
	Log                  *slog.Logger
	LeaseTime, LeaseBeat time.Duration // 0: 5 s and 1.25 s
	// Guard judges each address before it is dialled, as a net.Dialer's ControlContext; nil: all are allowed.
	Guard func(ctx context.Context, network, address string, c syscall.RawConn) error
}

// OpenNATS connects to NATS, and sets up what the journal needs there as soon as it answers. Errors are those
// of options that cannot be used.
func OpenNATS(options NATSOptions) (*NATS, error) {
	if options.LeaseTime == 0 {
		options.LeaseTime, options.LeaseBeat = leaseTime, leaseBeat
	}
	if options.MaxBytes == 0 {
		options.MaxBytes = 10 << 30
	}
	if options.Retention == 0 {
		options.Retention = 72 * time.Hour
	}
	n := &NATS{options: options, id: newOwner(), parts: map[int]*natsPart{}, cache: &cache{}, doubt: make(chan struct{}, 1), problem: errors.New("not connected yet"), heard: time.Now()}
	n.ctx, n.stop = context.WithCancel(context.Background())
	if options.Lacking != nil { // another journal takes its place when it is there
		n.problem = options.Lacking
		return n, nil
	}
	connect, err := n.connectOptions()
	if err != nil {
		return nil, err
	}
	if n.conn, err = nats.Connect(options.URL, connect...); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", plainNATS(err))
	}
	n.api = apiOf(&options)
	if n.js, err = jetstream.NewWithAPIPrefix(n.conn, n.api, jetstream.WithDefaultTimeout(natsTimeout)); err != nil {
		n.conn.Close()
		return nil, fmt.Errorf("use JetStream: %w", plainNATS(err))
	}
	n.done.Go(n.maintain)
	return n, nil
}

// apiOf is the prefix of JetStream's API.
func apiOf(o *NATSOptions) string {
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API"
	case o.Account != "":
		return "JS." + o.Account + ".API"
	}
	return "$JS.API"
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
		nats.Timeout(natsTimeout), nats.SetCustomDialer(n), nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.SyncQueueLen(2 * trimBatch), // for the answers to one request, which is made anew for each: 512 KiB by default
		nats.FlusherTimeout(sendTime),    // who writes to a server that reads nothing more holds up all others
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Log.Warn("NATS is not connected", "error", plainNATS(err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { o.Log.Info("NATS is connected again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { o.Log.Warn("NATS", "error", plainNATS(err)) }),
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
	cause := n.conn.LastError()
	if last := n.dialled.Load(); last != nil && *last != nil {
		cause = *last
	}
	if op := (*net.OpError)(nil); errors.As(cause, &op) {
		cause = op.Err
	}
	return fmt.Errorf("NATS is not reached%s", because(cause))
}

// name is that of the stream and of the buckets; namespaces and webhooks have no underscore, so that two of
// them never share one.
func (n *NATS) name() string { return "pbxhook_" + n.options.Namespace + "_" + n.options.Webhook }

// logStream has the delivery log.
func (n *NATS) logStream() string { return n.name() + "_log" }

// streamOf is the stream of a bucket (NATS: ADR-8).
func streamOf(bucket string) string { return "KV_" + bucket }

// streams are all that the journal has.
func (n *NATS) streams() []string {
	return []string{n.logStream(), n.name(), streamOf(n.name()), streamOf(n.letterBucket()), streamOf(n.leaseBucket())}
}

func (n *NATS) subject(rest string) string {
	return "pbxhook." + n.options.Namespace + "." + n.options.Webhook + "." + rest
}

func (n *NATS) partSubject(part int) string { return n.subject("p." + strconv.Itoa(part)) }

// newSubject is where the receiver that has a partition hears of its new events.
func (n *NATS) newSubject(part int) string { return n.subject("new." + strconv.Itoa(part)) }

// partitionOf is where an event belongs: all of a lane are in one partition.
func partitionOf(r *Record) int {
	key := r.Lane
	if key == "" {
		key = r.ID
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return int(h.Sum32() % Partitions)
}

// PartitionOf is where an event belongs.
func PartitionOf(h Head) int { return partitionOf(&Record{ID: h.ID, Lane: h.Lane}) }

// maintain sets up what is needed, for as long as it takes, and looks at the stream until that is gone.
func (n *NATS) maintain() {
	for n.ctx.Err() == nil {
		err := n.setUp()
		if err == nil {
			n.watch()
			continue
		}
		n.mu.Lock()
		if n.problem == nil || n.problem.Error() != err.Error() {
			n.options.Log.Warn("the NATS journal cannot be used", "error", err)
		}
		n.problem = err
		n.mu.Unlock()
		wait(n.ctx, natsRetry)
	}
}

// Targets says which targets there are. No event is taken before each has a cursor in every partition, so that
// none falls between a configuration and its first delivery, whichever receiver makes that.
func (n *NATS) Targets(names []string) {
	n.mu.Lock()
	n.targets, n.unnoted = names, names
	n.mu.Unlock()
	if n.Ready() {
		_ = n.note() // else as soon as it can be done
	}
}

// Ready is whether what the journal needs has been set up.
func (n *NATS) Ready() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kv != nil
}

// setUp makes the stream and the buckets, or brings them up to date.
func (n *NATS) setUp() error {
	if !n.conn.IsConnected() {
		return n.notReached()
	}
	if version := n.conn.ConnectedServerVersion(); older(version, oldestServer) {
		return fmt.Errorf("expected NATS servers from %s on, got %s: upgrade them", oldestServer, version)
	}
	stream, recreated, err := n.makeStream(jetstream.StreamConfig{
		Name: n.name(), Description: "Events of PBXWebhook " + n.options.Namespace + "/" + n.options.Webhook, Subjects: []string{n.subject("p.*")},
		MaxBytes: n.options.MaxBytes, Discard: jetstream.DiscardNew, Duplicates: repeatWindow, Metadata: n.firstMetadata(),
	})
	if err != nil {
		return err
	}
	if _, _, err := n.makeStream(jetstream.StreamConfig{
		Name: n.logStream(), Description: "Delivery log of PBXWebhook " + n.options.Namespace + "/" + n.options.Webhook, Subjects: []string{n.subject("log.*")},
		MaxBytes: maxLogBytes, MaxAge: logAge, Discard: jetstream.DiscardOld,
	}); err != nil {
		return err
	}
	kv, err := n.makeBucket(n.name(), 0)
	if err != nil {
		return err
	}
	letters, err := n.makeBucket(n.letterBucket(), deadLetterAge)
	if err != nil {
		return err
	}
	leases, err := n.makeBucket(n.leaseBucket(), n.options.LeaseTime)
	if err != nil {
		return err
	}
	if err := n.identify(n.ctx, recreated); err != nil {
		return err
	}
	info, err := n.info(n.ctx, n.name())
	if err != nil {
		return err
	}
	if !n.Ready() {
		if _, err := n.conn.Subscribe(n.subject("wish.*"), n.hearWish); err != nil {
			return fmt.Errorf("subscribe: %w", plainNATS(err))
		}
	}
	n.mu.Lock()
	if n.kv == nil { // else they go by their names, and are good for one that was recreated
		n.stream, n.kv, n.letters, n.leases = stream, kv, letters, leases
	}
	n.heard, n.problem = time.Now(), nil
	n.see(info)
	n.mu.Unlock()
	n.restoreCursors()
	return nil
}

// firstMetadata is that of a stream which is made now.
func (n *NATS) firstMetadata() map[string]string {
	return map[string]string{metaEpoch: newOwner()}
}

// makeStream makes a stream on the disk of as many servers as are asked for, or brings it up to date. Its metadata is
// for one that is made. Each request has a limit of its own: one sent before the servers have a leader is lost, and sent
// again.
func (n *NATS) makeStream(c jetstream.StreamConfig) (stream jetstream.Stream, made bool, err error) {
	c.Storage, c.Replicas, c.AllowDirect = jetstream.FileStorage, n.options.Replicas, true
	known, err := n.js.Stream(n.ctx, c.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		stream, err = n.js.CreateStream(n.ctx, c)
		made = err == nil
	case err == nil:
		c.Metadata = known.CachedInfo().Config.Metadata
		stream, err = n.js.UpdateStream(n.ctx, c)
	}
	if err != nil {
		return nil, false, fmt.Errorf("make the stream %s: %w", c.Name, plainJetStream(err))
	}
	return stream, made, nil
}

// makeBucket is makeStream for a bucket, whose values go after a time (0: never).
func (n *NATS) makeBucket(name string, ttl time.Duration) (jetstream.KeyValue, error) {
	kv, err := n.js.CreateOrUpdateKeyValue(n.ctx, jetstream.KeyValueConfig{Bucket: name, Storage: jetstream.FileStorage, Replicas: n.options.Replicas, History: 1, TTL: ttl})
	if err != nil {
		return nil, fmt.Errorf("make the bucket %s: %w", name, plainJetStream(err))
	}
	return kv, nil
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + plainNATS(err).Error()
}

// plainJetStream says what a person can do about an error of JetStream's.
func plainJetStream(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("JetStream is not enabled, or not for this account: %w", err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("nobody answers: JetStream is not enabled, or not for this account, or its servers have no leader now: %w", err)
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("the credentials may not do this: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("no answer in time: there may be no quorum, or the credentials may not use JetStream: %w", err)
	}
	return plainNATS(err)
}

// older is whether a version comes before another one.
func older(version, than string) bool {
	number := func(text string) (all [3]int) {
		for i, part := range strings.SplitN(strings.SplitN(text, "-", 2)[0], ".", 3) {
			all[i], _ = strconv.Atoi(part) // a version that is none counts as old
		}
		return all
	}
	a, b := number(version), number(than)
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// DropNATS deletes all that a journal in NATS has: its events, cursors, dead letters and delivery log. What is not there
// is deleted already.
func DropNATS(ctx context.Context, o NATSOptions) error {
	n := &NATS{options: o}
	connect, err := n.connectOptions()
	if err != nil {
		return err
	}
	connect = append(connect, nats.RetryOnFailedConnect(false))
	if n.conn, err = nats.Connect(o.URL, connect...); err != nil {
		return fmt.Errorf("connect to NATS: %w", plainNATS(err))
	}
	defer n.conn.Close()
	js, err := jetstream.NewWithAPIPrefix(n.conn, apiOf(&o))
	if err != nil {
		return fmt.Errorf("use JetStream: %w", plainNATS(err))
	}
	for _, stream := range n.streams() {
		if err := js.DeleteStream(ctx, stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("delete the stream %s: %w", stream, plainJetStream(err))
		}
	}
	return nil
}
