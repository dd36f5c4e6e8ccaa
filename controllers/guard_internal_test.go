package controllers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func TestWriteGuard(t *testing.T) {
	var g writeGuard
	webhook := types.NamespacedName{Namespace: "crm", Name: "callcenter"}
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for i := range sameWrites {
		require.Zero(t, g.write(webhook, "Service", "a", at(i)))
	}
	require.Equal(t, 50*time.Second, g.write(webhook, "Service", "a", at(10)), "until the first is a minute old")
	require.Zero(t, g.write(webhook, "Service", "b", at(10)), "another content is written at once")
	require.Zero(t, g.write(webhook, "Deployment", "a", at(10)), "and another object")
	require.Zero(t, g.write(webhook, "Service", "a", at(60)))
	for i := range allWrites {
		g.write(webhook, "Secret", string(rune('a'+i)), at(0))
	}
	require.NotZero(t, g.write(webhook, "Secret", "another", at(1)), "but not without end")
	g.forget(webhook)
	require.Zero(t, g.write(webhook, "Service", "a", at(10)))
}

func TestRestoreBacksOff(t *testing.T) {
	var g writeGuard
	webhook := types.NamespacedName{Namespace: "crm", Name: "callcenter"}
	now := time.Unix(1000, 0)
	var waits []time.Duration
	for range 9 {
		require.Zero(t, g.restore(webhook, "Service", now))
		wait := g.restore(webhook, "Service", now.Add(time.Second))
		waits = append(waits, wait+time.Second)
		now = now.Add(wait + time.Second)
	}
	require.Equal(t, []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute, 5 * time.Minute}, waits)
	now = now.Add(16 * time.Minute)
	require.Zero(t, g.restore(webhook, "Service", now))
	require.Equal(t, 4*time.Second, g.restore(webhook, "Service", now.Add(time.Second)), "after a quiet time it begins again")
}
