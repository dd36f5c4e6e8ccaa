package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
)

// load is a PBX that sends events at a rate, each one once, and notes what it was answered.
type load struct {
	c        *cluster
	url      string
	client   *http.Client
	password atomic.Value // string
	cancel   context.CancelFunc
	done     sync.WaitGroup

	mu       sync.Mutex
	accepted map[string]time.Time // ids that were answered 202, and when
	refused  []string             // other answers, and none
}

const senders = 16

// dialer gives up soon on the address of a pod that is gone: all senders that wait for one would look like a gap.
var dialer = net.Dialer{Timeout: time.Second}

// startLoad sends to a webhook until stop.
func (c *cluster) startLoad(webhook, password string, perSecond int) *load {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	l := &load{
		c: c, url: c.service(webhook+"-receiver", 80) + "/hooks/" + c.namespace + "/" + webhook,
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senders, DialContext: dialer.DialContext}},
		cancel: cancel, accepted: map[string]time.Time{},
	}
	l.password.Store(password)
	ticks := make(chan int)
	l.done.Go(func() {
		defer close(ticks)
		every := time.NewTicker(time.Second / time.Duration(perSecond))
		defer every.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
				ticks <- n
			}
		}
	})
	for range senders {
		l.done.Go(func() {
			for n := range ticks {
				l.send(n)
			}
		})
	}
	c.t.Cleanup(l.stop)
	return l
}

func (l *load) send(n int) {
	body := fmt.Sprintf(`{"event_name":"CdrQueue","unique_id":"%d.1","queue":"901","billsec":"11"}`, n)
	request, err := http.NewRequest(http.MethodPost, l.url, strings.NewReader(body))
	if err != nil {
		panic(err) // the address is one of ours
	}
	request.SetBasicAuth("pbx", l.password.Load().(string))
	response, err := l.client.Do(request)
	answer, id := "", ""
	if err == nil {
		var told struct{ ID string }
		data, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		_ = json.Unmarshal(data, &told)
		answer, id = fmt.Sprintf("%d %s", response.StatusCode, data), told.ID
		if response.StatusCode != http.StatusAccepted {
			id = ""
		}
	} else {
		answer = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if id == "" {
		l.refused = append(l.refused, answer)
		return
	}
	l.accepted[id] = time.Now()
}

// reasons counts what was answered to those who were refused, or why there was no answer.
func (l *load) reasons() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]int{}
	for _, answer := range l.refused {
		all[answer[strings.LastIndex(answer, ": ")+1:]]++
	}
	return all
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// noneRefused requires that every request until now was answered 202.
func (l *load) noneRefused(after string) {
	l.c.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(l.c.t, l.refused, "after %s", after)
}

// arrived requires that every accepted event comes to the target at a path, at least once.
func (l *load) arrived(path string) {
	l.c.t.Helper()
	l.c.eventually("every accepted event arrives", func() bool {
		got := map[any]bool{}
		for _, e := range l.c.received(path) {
			got[e["id"]] = true
		}
		for id := range l.accepted {
			if !got[id] {
				return false
			}
		}
		return true
	})
}

// gap is the longest time between two accepted events that follow one another.
func (l *load) gap() (longest time.Duration) {
	times := make([]time.Time, 0, len(l.accepted))
	for _, at := range l.accepted {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i].Sub(times[i-1]))
	}
	return longest
}
