package receiver_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestALoopEnds: a webhook that is its own target gets an event five times, and says why there is no sixth; with
// another URL it is well again.
func TestALoopEnds(t *testing.T) {
	s := newTarget(t)
	for _, format := range []string{"CloudEvents", "Original"} {
		t.Run(format, func(t *testing.T) {
			r := start(t, manifest("p", at("a", s.URL+"/a")))
			leadTo := func(url string) {
				before := r.report().ConfigHash
				r.write(manifest("p", fmt.Sprintf(`{name: loop, url: %q, format: %s, eventTypes: [call.ended, unparsed], auth: {basic: {secretRef: {name: pbx}}}}`, url, format)))
				r.eventually("it is configured", func() bool { return r.report().ConfigHash != before })
			}
			leadTo("http://" + r.hooks + "/hooks/crm/callcenter")
			require.Equal(t, 202, r.send("p"))
			r.eventually("the loop is named", func() bool {
				webhook := r.report().Webhooks[0]
				return webhook.Events.Rejected == 1 && webhook.Targets[0].DeadLettered == 1 && !webhook.Targets[0].Healthy
			})
			webhook := r.report().Webhooks[0]
			require.EqualValues(t, 5, webhook.Events.Received)
			require.Contains(t, webhook.Targets[0].LastError, "leads back to pbxhook")
			require.Contains(t, webhook.Events.LastRejectedReason, "508: ")
			leadTo(s.URL)
			r.eventually("another URL is no loop", func() bool { return r.report().Webhooks[0].Targets[0].Healthy })
		})
	}
}
