package journal

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// Partitions is how many parts the events of a shared journal have, by their lane: fixed for ever.
const Partitions = 16

const (
	natsTimeout    = 4 * time.Second // for what a PBX waits for
	natsRetry      = 500 * time.Millisecond
	natsPoll       = time.Second // between two looks at the stream
	repeatWindow   = 10 * time.Minute
	payloadReserve = 64 << 10 // of the server's max_payload, for headers
	oldestServer   = "2.11.0" // that gives several messages for one request
	maxCached      = 2048
	maxCachedBytes = 2 << 20
)

// ErrUnavailable says that NATS cannot be used now. It heals by itself.
var ErrUnavailable = errors.New("the NATS journal is not available")

// ErrTooLarge says that an event is longer than the NATS servers take (max_payload).
var ErrTooLarge = errors.New("the event is longer than the NATS servers take")

// ErrNotOwner says that a partition belongs to another receiver by now.
var ErrNotOwner = errors.New("another receiver has this partition")

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
}

// NATS is a journal in a JetStream stream, which several receivers share. Events are published one by one, and
// kept when a quorum of the servers has them. They are read by sequence number, without consumers, so that a
// server that is lost takes no position with it; cursors, dead letters and leases are in key-value buckets.
//
// While NATS cannot be reached, events are refused at once; all goes on by itself when it is back.
type NATS struct {
	options NATSOptions
	conn    *nats.Conn
	js      jetstream.JetStream
	api     string // prefix of JetStream's API
	id      string // of this receiver
	cache   cache
	done    sync.WaitGroup
	cut     atomic.Bool // by a test: it cannot connect
	ctx     context.Context
	stop    context.CancelFunc

	mu       sync.Mutex
	kv       jetstream.KeyValue // nil until all is set up
	leases   jetstream.KeyValue
	stream   jetstream.Stream
	problem  error // why it cannot be used
	state    State
	counted  natsCounts // not yet written
	unnoted  []string   // targets whose cursors may not be there yet: until then no event is taken
	notified uint64     // the highest sequence number that was told of
	parts    map[int]*natsPart
}

// natsCounts are what no stream counts; all receivers add to one value.
type natsCounts struct {
	Unparsed, OtherVersion, Rejected, Repeated, Logged int64
	LastOtherVersion                                   string
	LastRejected                                       Rejection
}

func (c *natsCounts) empty() bool { return *c == natsCounts{} }

func (c *natsCounts) add(o natsCounts) {
	c.Unparsed += o.Unparsed
	c.OtherVersion += o.OtherVersion
	c.Rejected += o.Rejected
	c.Repeated += o.Repeated
	c.Logged += o.Logged
	if o.LastOtherVersion != "" {
		c.LastOtherVersion = o.LastOtherVersion
	}
	if o.LastRejected.At.After(c.LastRejected.At) {
		c.LastRejected = o.LastRejected
	}
}

var _ Journal = (*NATS)(nil)

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
	n := &NATS{options: options, id: newOwner(), parts: map[int]*natsPart{}, problem: errors.New("not connected yet")}
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
		nats.Timeout(natsTimeout), nats.SetCustomDialer(n), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
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
	return net.DialTimeout(network, address, natsTimeout)
}

// name is that of the stream and of the buckets; namespaces and webhooks have no underscore, so that two of
// them never share one.
func (n *NATS) name() string { return "pbxhook_" + n.options.Namespace + "_" + n.options.Webhook }

func (n *NATS) subject(rest string) string {
	return "pbxhook." + n.options.Namespace + "." + n.options.Webhook + "." + rest
}

func (n *NATS) partSubject(part int) string { return n.subject("p." + strconv.Itoa(part)) }

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

// maintain sets up what is needed, for as long as it takes, and then looks at the stream now and then.
func (n *NATS) maintain() {
	for n.ctx.Err() == nil {
		err := n.setUp()
		if err == nil {
			break
		}
		n.mu.Lock()
		if n.problem == nil || n.problem.Error() != err.Error() {
			n.options.Log.Warn("the NATS journal cannot be used", "error", err)
		}
		n.problem = err
		n.mu.Unlock()
		n.pause(natsRetry)
	}
	for n.ctx.Err() == nil {
		if err := n.note(); err != nil {
			n.options.Log.Warn("the targets cannot be noted", "error", err)
		}
		n.look()
		n.pause(natsPoll)
	}
}

// Targets says which targets there are. No event is taken before each has a cursor in every partition, so that
// none falls between a configuration and its first delivery, whichever receiver makes that.
func (n *NATS) Targets(names []string) {
	n.mu.Lock()
	n.unnoted = names
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

// note makes the cursors that are missing.
func (n *NATS) note() error {
	n.mu.Lock()
	targets := n.unnoted
	n.mu.Unlock()
	if len(targets) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, maxReadTime)
	defer cancel()
	info, err := n.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at the stream %s: %w", n.name(), plainJetStream(err))
	}
	there := map[string]bool{}
	if err := n.eachCursor(ctx, "cursor.>", func(part int, target string, _ found) { there[cursorKey(part, target)] = true }); err != nil {
		return err
	}
	for _, target := range targets {
		for part := range Partitions {
			if key := cursorKey(part, target); !there[key] {
				if _, err := n.write(ctx, key, owned{Cursor: Cursor{Floor: info.State.LastSeq}}, 0); err != nil && !outdated(err) {
					return err
				}
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(n.unnoted, targets) {
		n.unnoted = nil
	}
	return nil
}

func (n *NATS) pause(d time.Duration) {
	select {
	case <-n.ctx.Done():
	case <-time.After(d):
	}
}

// setUp makes the stream and the buckets, or brings them up to date.
func (n *NATS) setUp() error {
	if !n.conn.IsConnected() {
		return fmt.Errorf("NATS is not reached%s", because(n.conn.LastError()))
	}
	if version := n.conn.ConnectedServerVersion(); older(version, oldestServer) {
		return fmt.Errorf("expected NATS servers from %s on, got %s: upgrade them", oldestServer, version)
	}
	ctx, cancel := context.WithTimeout(n.ctx, 2*natsTimeout)
	defer cancel()
	stream, err := n.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: n.name(), Description: "Events of PBXWebhook " + n.options.Namespace + "/" + n.options.Webhook, Subjects: []string{n.subject("p.*")},
		Storage: jetstream.FileStorage, Replicas: n.options.Replicas, MaxBytes: n.options.MaxBytes, Discard: jetstream.DiscardNew,
		Duplicates: repeatWindow, AllowDirect: true,
	})
	if err != nil {
		return fmt.Errorf("make the stream %s: %w", n.name(), plainJetStream(err))
	}
	if _, err := n.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: n.name() + "_log", Description: "Delivery log of PBXWebhook " + n.options.Namespace + "/" + n.options.Webhook, Subjects: []string{n.subject("log.*")},
		Storage: jetstream.FileStorage, Replicas: n.options.Replicas, MaxBytes: maxLogBytes, MaxAge: logAge, Discard: jetstream.DiscardOld, AllowDirect: true,
	}); err != nil {
		return fmt.Errorf("make the stream %s_log: %w", n.name(), plainJetStream(err))
	}
	kv, err := n.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: n.name(), Storage: jetstream.FileStorage, Replicas: n.options.Replicas, History: 1})
	if err != nil {
		return fmt.Errorf("make the bucket %s: %w", n.name(), plainJetStream(err))
	}
	leases, err := n.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: n.name() + "_leases", Storage: jetstream.FileStorage, Replicas: n.options.Replicas, History: 1, TTL: n.options.LeaseTime,
	})
	if err != nil {
		return fmt.Errorf("make the bucket %s_leases: %w", n.name(), plainJetStream(err))
	}
	if _, err := n.conn.Subscribe(n.subject("new.*"), n.hear); err != nil {
		return fmt.Errorf("subscribe: %w", plainNATS(err))
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at the stream %s: %w", n.name(), plainJetStream(err))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stream, n.kv, n.leases, n.problem = stream, kv, leases, nil
	n.see(info)
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
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("JetStream is not enabled, or not for this account: %w", err)
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

// see takes in what the stream has; n.mu is held.
func (n *NATS) see(info *jetstream.StreamInfo) {
	n.state.LastSeq = max(n.state.LastSeq, info.State.LastSeq)
	n.state.Received, n.state.Events, n.state.Bytes, n.state.MaxBytes = int64(info.State.LastSeq), int64(info.State.Msgs), int64(info.State.Bytes), info.Config.MaxBytes
	if info.State.LastTime.After(n.state.LastReceived) {
		n.state.LastReceived = info.State.LastTime
	}
}

// look reads the stream's state, adds what was counted here to what all have counted, and wakes the readers when
// something came that nobody told of.
func (n *NATS) look() {
	ctx, cancel := context.WithTimeout(n.ctx, natsTimeout)
	defer cancel()
	info, err := n.stream.Info(ctx)
	if err != nil {
		return // who needs it finds out
	}
	n.mu.Lock()
	n.see(info)
	missed := info.State.LastSeq > n.notified
	n.notified = max(n.notified, info.State.LastSeq)
	n.mu.Unlock()
	if missed {
		n.wake(-1, 0)
	}
	n.count(ctx)
}

const countsKey = "counts"

// count adds what was counted here to the value that all receivers share.
func (n *NATS) count(ctx context.Context) {
	n.mu.Lock()
	mine := n.counted
	n.counted = natsCounts{}
	n.mu.Unlock()
	var all natsCounts
	revision, err := n.read(ctx, countsKey, &all)
	if err == nil && !mine.empty() {
		all.add(mine)
		_, err = n.write(ctx, countsKey, all, revision)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.counted.add(mine) // once more, next time
		return
	}
	n.state.Unparsed, n.state.OtherVersion, n.state.Rejected, n.state.Repeated = all.Unparsed, all.OtherVersion, all.Rejected, all.Repeated
	n.state.LastOtherVersion, n.state.LastRejected, n.state.Logged = all.LastOtherVersion, all.LastRejected, all.Logged
}

// read reads a value of the bucket; revision 0: there is none.
func (n *NATS) read(ctx context.Context, key string, value any) (revision uint64, err error) {
	kv, err := n.bucket()
	if err != nil {
		return 0, err
	}
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, plainJetStream(err))
	}
	if err := unseal([]byte(key), entry.Value(), value); err != nil {
		return 0, &DamagedError{File: n.name(), Err: fmt.Errorf("%s: %w", key, err)}
	}
	return entry.Revision(), nil
}

// write writes a value over a revision that was read (0: there was none).
func (n *NATS) write(ctx context.Context, key string, value any, revision uint64) (uint64, error) {
	kv, err := n.bucket()
	if err != nil {
		return 0, err
	}
	data, err := seal([]byte(key), value)
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", key, err)
	}
	if revision == 0 {
		revision, err = kv.Create(ctx, key, data)
	} else {
		revision, err = kv.Update(ctx, key, data, revision)
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", key, plainJetStream(err))
	}
	return revision, nil
}

// outdated is whether a write failed because somebody else wrote meanwhile.
func outdated(err error) bool {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return true
	}
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// bucket is where cursors and dead letters are, or why it cannot be used.
func (n *NATS) bucket() (jetstream.KeyValue, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kv == nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, n.problem)
	}
	return n.kv, nil
}

// Problem says why the journal cannot be used now, or nothing.
func (n *NATS) Problem() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.problem != nil:
		return n.problem
	case !n.conn.IsConnected():
		return fmt.Errorf("NATS is not reached%s", because(n.conn.LastError()))
	case len(n.unnoted) > 0:
		return errors.New("the cursors of its targets are not made yet")
	}
	return nil
}

// Append implements Journal.
func (n *NATS) Append(ctx context.Context, r Record, key *RepeatKey) (Receipt, error) {
	if err := n.Problem(); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	part := partitionOf(&r)
	msg := &nats.Msg{Subject: n.partSubject(part), Data: encode(0, &r), Header: nats.Header{}}
	if key != nil {
		msg.Header.Set(nats.MsgIdHdr, hex.EncodeToString(key[:]))
	}
	if most := n.conn.MaxPayload() - payloadReserve; int64(len(msg.Data)) > most {
		return Receipt{}, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLarge, len(msg.Data), most)
	}
	ctx, cancel := context.WithTimeout(ctx, natsTimeout)
	defer cancel()
	ack, err := n.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(n.name()), jetstream.WithRetryWait(natsTimeout/20), jetstream.WithRetryAttempts(20))
	if err != nil {
		return Receipt{}, n.refusal(err)
	}
	if ack.Duplicate {
		return n.repeated(ctx, ack.Sequence)
	}
	r.Seq = ack.Sequence
	n.cache.add(&r)
	n.mu.Lock()
	n.state.LastSeq = max(n.state.LastSeq, r.Seq)
	n.state.LastReceived = r.Request.ReceivedAt
	if r.Type == event.Unparsed {
		n.counted.Unparsed++
	}
	if r.OtherVersion != "" {
		n.counted.OtherVersion++
		n.counted.LastOtherVersion = r.OtherVersion
	}
	n.mu.Unlock()
	_ = n.conn.Publish(n.subject("new."+strconv.Itoa(part)), []byte(strconv.FormatUint(r.Seq, 10))) // who does not hear it looks by itself
	return Receipt{Seq: r.Seq, ID: r.ID, Type: r.Type}, nil
}

// refusal says why an event was not kept.
func (n *NATS) refusal(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && strings.Contains(api.Description, "maximum bytes exceeded") {
		return fmt.Errorf("%w: the stream %s has reached its maxBytes", ErrFull, n.name())
	}
	if errors.As(err, &api) && (strings.Contains(api.Description, "resources") || strings.Contains(api.Description, "storage")) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, plainJetStream(err))
}

// repeated is the receipt of an event that was kept before.
func (n *NATS) repeated(ctx context.Context, seq uint64) (Receipt, error) {
	n.mu.Lock()
	n.counted.Repeated++
	n.mu.Unlock()
	first, err := n.get(ctx, seq)
	if errors.Is(err, ErrNotFound) { // delivered and trimmed within the window
		return Receipt{Seq: seq, Repeat: true}, nil
	}
	return Receipt{Seq: seq, ID: first.ID, Type: first.Type, Repeat: true}, err
}

// Reject implements Journal.
func (n *NATS) Reject(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counted.Rejected++
	n.counted.LastRejected = Rejection{At: time.Now().UTC(), Reason: reason}
}

// State implements Journal.
func (n *NATS) State() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.state
	s.Unparsed += n.counted.Unparsed
	s.OtherVersion += n.counted.OtherVersion
	s.Rejected += n.counted.Rejected
	s.Repeated += n.counted.Repeated
	s.Logged += n.counted.Logged
	s.MaxBytes = n.options.MaxBytes
	if n.counted.LastRejected.At.After(s.LastRejected.At) {
		s.LastRejected = n.counted.LastRejected
	}
	return s
}

// hear takes in that a receiver, perhaps this one, has kept an event.
func (n *NATS) hear(msg *nats.Msg) {
	part, err := strconv.Atoi(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:])
	seq, seqErr := strconv.ParseUint(string(msg.Data), 10, 64)
	if err != nil || seqErr != nil || part < 0 {
		return // not ours
	}
	n.mu.Lock()
	n.notified, n.state.LastSeq = max(n.notified, seq), max(n.state.LastSeq, seq)
	n.mu.Unlock()
	n.wake(part, seq)
}

// wake tells the readers of a partition (-1: of all) that there is something to read.
func (n *NATS) wake(part int, seq uint64) {
	n.mu.Lock()
	var woken []*natsPart
	for index, p := range n.parts {
		if part < 0 || index == part {
			woken = append(woken, p)
		}
	}
	n.mu.Unlock()
	for _, p := range woken {
		p.wake(seq)
	}
}

// Close implements Journal.
func (n *NATS) Close() error {
	if n.ctx.Err() != nil {
		return nil
	}
	if n.conn == nil { // it lacked something
		n.stop()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), natsTimeout)
	defer cancel()
	if n.Problem() == nil {
		n.count(ctx)
		select { // what is on its way into the delivery log
		case <-n.js.PublishAsyncComplete():
		case <-ctx.Done():
		}
	}
	n.stop()
	n.done.Wait()
	n.conn.Close()
	return nil
}

// cache are the latest events, decoded.
type cache struct {
	mu      sync.Mutex
	records map[uint64]*Record
	order   []uint64
	bytes   int
}

func (c *cache) add(r *Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records == nil {
		c.records = map[uint64]*Record{}
	}
	if _, known := c.records[r.Seq]; known {
		return
	}
	c.records[r.Seq] = r
	c.order = append(c.order, r.Seq)
	c.bytes += r.size()
	for len(c.order) > 1 && (len(c.order) > maxCached || c.bytes > maxCachedBytes) {
		c.bytes -= c.records[c.order[0]].size()
		delete(c.records, c.order[0])
		c.order = c.order[1:]
	}
}

func (c *cache) get(seq uint64) *Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.records[seq]
}
