package journal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What the streams are asked to be is compared with what they are at every look, and put back. An administrator may change
// what is not compared: placement, compression, republishing, description, metadata of others.

const (
	metaAsked   = "pbxhook-asked"   // what the receiver that set the stream up last was told
	metaCluster = "pbxhook-cluster" // whose it is
	copiesTime  = 30 * time.Second  // for which copies may be missing, as while a server restarts
)

// asked is what a configuration of the webhook says of the stream: receivers with another one leave it alone.
func (n *NATS) asked() string {
	return fmt.Sprintf("maxBytes=%d replicas=%d", n.options.MaxBytes, n.options.Replicas)
}

// wanted returns how the streams must be, the one of the events first.
func (n *NATS) wanted() []jetstream.StreamConfig {
	whose := " of PBXWebhook " + n.options.Namespace + "/" + n.options.Webhook
	all := []jetstream.StreamConfig{{
		Name: n.name(), Description: "Events" + whose, Subjects: []string{n.subject("p.*")},
		MaxBytes: n.options.MaxBytes, MaxMsgsPerSubject: -1, Discard: jetstream.DiscardNew, Duplicates: repeatWindow,
		Metadata: map[string]string{metaEpoch: newOwner(), metaAsked: n.asked()},
	}, {
		Name: n.logStream(), Description: "Delivery log" + whose, Subjects: []string{n.subject("log.*")},
		MaxBytes: maxLogBytes, MaxAge: logAge, MaxMsgsPerSubject: -1, Discard: jetstream.DiscardOld,
	}}
	if n.options.Cluster != "" {
		all[0].Metadata[metaCluster] = n.options.Cluster
	}
	for _, bucket := range []struct {
		name string
		age  time.Duration
	}{{n.name(), 0}, {n.letterBucket(), deadLetterAge}, {n.leaseBucket(), n.options.LeaseTime}} {
		all = append(all, jetstream.StreamConfig{ // NATS: ADR-8
			Name: streamOf(bucket.name), Subjects: []string{"$KV." + bucket.name + ".>"}, MaxAge: bucket.age, MaxBytes: -1, MaxMsgsPerSubject: 1,
			Discard: jetstream.DiscardNew, AllowRollup: true,
		})
	}
	for i := range all {
		all[i].Storage, all[i].Replicas, all[i].AllowDirect = jetstream.FileStorage, n.options.Replicas, true
		all[i].MaxMsgs, all[i].MaxMsgSize = -1, -1
	}
	return all
}

// correct returns a stream's configuration as it must be, and what of it is not so.
func correct(has, want jetstream.StreamConfig) (right jetstream.StreamConfig, differences []string) {
	right = has
	right.Metadata = maps.Clone(has.Metadata)
	differs := func(what string, has, want any) {
		if fmt.Sprint(has) != fmt.Sprint(want) {
			differences = append(differences, fmt.Sprintf("%s is %v, expected %v", what, has, want))
		}
	}
	differs("subjects", has.Subjects, want.Subjects)
	differs("retention", has.Retention, want.Retention)
	differs("discard", has.Discard, want.Discard)
	differs("max_bytes", has.MaxBytes, want.MaxBytes)
	differs("max_age", has.MaxAge, want.MaxAge)
	differs("max_msgs", has.MaxMsgs, want.MaxMsgs)
	differs("max_msg_size", has.MaxMsgSize, want.MaxMsgSize)
	differs("max_msgs_per_subject", has.MaxMsgsPerSubject, want.MaxMsgsPerSubject)
	differs("num_replicas", has.Replicas, want.Replicas)
	differs("allow_direct", has.AllowDirect, want.AllowDirect)
	differs("no_ack", has.NoAck, want.NoAck)
	differs("sealed", has.Sealed, want.Sealed)
	differs("deny_purge", has.DenyPurge, want.DenyPurge)
	if want.Duplicates > 0 {
		differs("duplicate_window", has.Duplicates, want.Duplicates)
		right.Duplicates = want.Duplicates
	} else if want.MaxAge > 0 {
		right.Duplicates = min(has.Duplicates, want.MaxAge) // which the servers insist on
	}
	differs("subject_transform", has.SubjectTransform != nil, want.SubjectTransform != nil)
	right.Subjects, right.Retention, right.Discard, right.MaxBytes, right.MaxAge = want.Subjects, want.Retention, want.Discard, want.MaxBytes, want.MaxAge
	right.MaxMsgs, right.MaxMsgSize, right.MaxMsgsPerSubject, right.Replicas = want.MaxMsgs, want.MaxMsgSize, want.MaxMsgsPerSubject, want.Replicas
	right.AllowDirect, right.NoAck, right.Sealed, right.DenyPurge, right.SubjectTransform = want.AllowDirect, want.NoAck, want.Sealed, want.DenyPurge, want.SubjectTransform
	right.DiscardNewPerSubject = false
	return right, differences
}

// makeStream makes a stream on the disk of as many servers as are asked for, or brings it up to date; made is whether it
// was not there. Each request has a limit of its own: one sent before the servers have a leader is lost, and sent again.
func (n *NATS) makeStream(want jetstream.StreamConfig) (made bool, err error) {
	info, err := n.info(n.ctx, want.Name)
	if err != nil && !notThere(err) {
		return false, err
	}
	if err != nil {
		if want.AllowRollup { // a bucket, which the library makes as others expect it
			bucket := strings.TrimPrefix(want.Name, streamOf(""))
			_, err = n.js().CreateKeyValue(n.ctx, jetstream.KeyValueConfig{Bucket: bucket, Storage: want.Storage, Replicas: want.Replicas, History: 1, TTL: want.MaxAge})
		} else {
			_, err = n.js().CreateStream(n.ctx, want)
		}
		if err != nil {
			return false, fmt.Errorf("make the stream %s: %w", want.Name, plainJetStream(err))
		}
		return true, nil
	}
	if whose := info.Config.Metadata[metaCluster]; n.options.Cluster != "" && whose != "" && whose != n.options.Cluster {
		return false, fmt.Errorf("the stream %s belongs to the webhook of the same namespace and name in another cluster (%s; this one is %s): give one of the two another name, or an account of its own; if this cluster took its place, remove %s from the stream's metadata", want.Name, whose, n.options.Cluster, metaCluster)
	}
	right, differences := correct(info.Config, want)
	for _, key := range []string{metaAsked, metaCluster} {
		if value, ok := want.Metadata[key]; ok && right.Metadata[key] != value {
			if right.Metadata == nil {
				right.Metadata = map[string]string{}
			}
			right.Metadata[key] = value
			differences = append(differences, key)
		}
	}
	if len(differences) == 0 {
		return false, nil
	}
	if _, err := n.js().UpdateStream(n.ctx, right); err != nil {
		return false, fmt.Errorf("change the stream %s (%s): %w", want.Name, strings.Join(differences, ", "), plainJetStream(err))
	}
	return false, nil
}

// hold compares a stream with what it must be, and puts back what is not so. What cannot be put back is in the status.
func (n *NATS) hold(ctx context.Context, info *jetstream.StreamInfo) {
	wanted := n.wanted()
	i := slices.IndexFunc(wanted, func(c jetstream.StreamConfig) bool { return c.Name == info.Config.Name })
	if i == 0 {
		n.mu.Lock()
		n.elsewhere = info.Config.Metadata[metaAsked] != n.asked() // a newer configuration; this receiver has it soon, or is replaced
		n.mu.Unlock()
	}
	n.mu.Lock()
	others := n.elsewhere
	n.mu.Unlock()
	if others {
		return
	}
	right, differences := correct(info.Config, wanted[i])
	text := ""
	if len(differences) > 0 {
		what := fmt.Errorf("%s", strings.Join(differences, ", "))
		n.say("a stream was changed, and is put back", what, "stream", info.Config.Name)
		if _, err := n.js().UpdateStream(ctx, right); err != nil {
			text = fmt.Sprintf("the stream %s is not as it must be, and cannot be put back (%v): %v", info.Config.Name, plainJetStream(err), what)
		}
	} else {
		text = n.copies(info)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if text == "" {
		delete(n.differences, info.Config.Name)
		return
	}
	n.differences[info.Config.Name] = text
}

// copies says how many copies of a stream are up to date, where some have been missing for a while.
func (n *NATS) copies(info *jetstream.StreamInfo) string {
	there := 1
	if info.Cluster != nil {
		for _, peer := range info.Cluster.Replicas {
			if peer.Current && !peer.Offline {
				there++
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if there >= info.Config.Replicas {
		delete(n.missing, info.Config.Name)
		return ""
	}
	since, ok := n.missing[info.Config.Name]
	if !ok {
		n.missing[info.Config.Name] = time.Now()
		return ""
	}
	if time.Since(since) < copiesTime {
		return ""
	}
	return fmt.Sprintf("%d of %d copies of the stream %s are up to date: the loss of servers may lose accepted events", there, info.Config.Replicas, info.Config.Name)
}
