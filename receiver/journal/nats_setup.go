package journal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSOptions of a journal in JetStream.
type NATSOptions struct {
	Namespace, Webhook   string // whose it is: they make its names
	Cluster              string // in which it is; another one's stream is not used; empty: not told
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
	n := &NATS{options: options, id: newOwner(), parts: map[int]*natsPart{}, cache: &cache{}, failing: map[task]*failing{}, differences: map[string]string{}, damagedCursors: map[string]string{}, missing: map[string]time.Time{}, vanished: map[string]*vanished{}, said: map[string]time.Time{}, looked: time.Now(), doubt: make(chan struct{}, 1), problem: errors.New("not connected yet"), heard: time.Now()}
	n.ctx, n.stop = context.WithCancel(context.Background())
	if options.Lacking != nil { // another journal takes its place when it is there
		n.problem = options.Lacking
		return n, nil
	}
	n.api = apiOf(&options)
	if err := n.connect(); err != nil {
		return nil, err
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
		n.switchServer()
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
	if err := n.reopen(); err != nil {
		return err
	}
	if !n.conn().IsConnected() {
		return n.notReached()
	}
	if version := n.conn().ConnectedServerVersion(); older(version, oldestServer) {
		return fmt.Errorf("expected NATS servers from %s on, got %s: upgrade them", oldestServer, version)
	}
	recreated := false
	for i, want := range n.wanted() {
		made, err := n.makeStream(want)
		if err != nil {
			return err
		}
		recreated = recreated || made && i == 0
	}
	if err := n.identify(n.ctx, recreated); err != nil {
		return err
	}
	info, err := n.info(n.ctx, n.name())
	if err != nil {
		return err
	}
	if !n.Ready() {
		if _, err := n.conn().Subscribe(n.subject("wish.*"), n.hearWish); err != nil {
			return fmt.Errorf("subscribe: %w", plainNATS(err))
		}
	}
	if err := n.handles(); err != nil {
		return err
	}
	n.mu.Lock()
	n.heard, n.looked, n.problem = time.Now(), time.Now(), nil
	n.see(info)
	n.mu.Unlock()
	n.restoreCursors()
	return nil
}

// handles makes what the stream and the buckets are used by. They go by their names, and are good for ones that were
// recreated.
func (n *NATS) handles() error {
	if n.Ready() {
		return nil
	}
	stream, err := n.js().Stream(n.ctx, n.name())
	if err != nil {
		return fmt.Errorf("look at the stream %s: %w", n.name(), plainJetStream(err))
	}
	var buckets []jetstream.KeyValue
	for _, name := range []string{n.name(), n.letterBucket(), n.leaseBucket()} {
		bucket, err := n.js().KeyValue(n.ctx, name)
		if err != nil {
			return fmt.Errorf("look at the bucket %s: %w", name, plainJetStream(err))
		}
		buckets = append(buckets, bucket)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stream, n.kv, n.letters, n.leases = stream, buckets[0], buckets[1], buckets[2]
	return nil
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
	n := &NATS{options: o, ctx: ctx}
	connect, err := n.connectOptions()
	if err != nil {
		return err
	}
	conn, err := nats.Connect(o.URL, append(connect, nats.RetryOnFailedConnect(false), nats.ClosedHandler(nil))...)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", plainNATS(err))
	}
	defer conn.Close()
	js, err := jetstream.NewWithAPIPrefix(conn, apiOf(&o))
	if err != nil {
		return fmt.Errorf("use JetStream: %w", plainNATS(err))
	}
	events, err := js.Stream(ctx, n.name())
	if err == nil {
		if whose := events.CachedInfo().Config.Metadata[metaCluster]; o.Cluster != "" && whose != "" && whose != o.Cluster {
			return nil // it is another cluster's
		}
	}
	for _, stream := range n.streams() {
		if err := js.DeleteStream(ctx, stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("delete the stream %s: %w", stream, plainJetStream(err))
		}
	}
	return nil
}
