package dispatch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSlots(t *testing.T) {
	now, answer := time.Now(), Outcome{Result: Delivered, Answered: true, Status: 200}
	fresh := func() *lane { return &lane{} }
	failed := func() *lane { return &lane{failures: 1} }
	slots16 := func() *slots {
		s := &slots{}
		s.resize(16)
		return s
	}
	fill := func(t *testing.T, s *slots, at time.Time) (held []*lane) {
		t.Helper()
		for {
			from, ok := s.freeAt(at)
			if !ok || from.After(at) {
				return held
			}
			l := fresh()
			s.began(at, l)
			held = append(held, l)
		}
	}

	t.Run("a burst does not take all slots", func(t *testing.T) {
		s := slots16()
		require.Len(t, fill(t, s, now), 9)
		at, ok := s.freeAt(now)
		require.True(t, ok)
		require.Equal(t, now.Add(slowAfter), at, "one more after a while")
		require.Len(t, fill(t, s, at), 1)
	})
	t.Run("where no attempt ends all slots are held in the end", func(t *testing.T) {
		s := slots16()
		for i := range 20 {
			fill(t, s, now.Add(time.Duration(i)*slowAfter))
		}
		require.True(t, s.full())
		_, ok := s.freeAt(now.Add(time.Hour))
		require.False(t, ok)
	})
	t.Run("a target that answers has all slots at once", func(t *testing.T) {
		s := slots16()
		held := fill(t, s, now)
		at := now.Add(100 * time.Millisecond)
		for _, l := range held {
			s.ended(at, l, answer)
			fill(t, s, at)
		}
		require.True(t, s.full())
	})
	t.Run("half held by slow attempts, an answer opens one slot", func(t *testing.T) {
		s := slots16()
		fill(t, s, now)
		at := now.Add(slowAfter)
		held := fill(t, s, at)
		require.Len(t, held, 1)
		require.True(t, s.isStuck(at))
		for range 100 {
			s.ended(at, held[0], answer)
			held = fill(t, s, at)
			require.Len(t, held, 1)
		}
	})
	t.Run("what answers gave lapses", func(t *testing.T) {
		s := slots16()
		held := fill(t, s, now)
		for _, l := range held {
			s.ended(now, l, answer)
		}
		require.Len(t, fill(t, s, now.Add(slowAfter)), 9)
	})
	t.Run("lanes that failed hold half of the slots", func(t *testing.T) {
		s := slots16()
		n := 0
		for ; s.failingMayBegin(now, false); n++ {
			s.began(now, failed())
		}
		require.Equal(t, 8, n)
	})
	t.Run("and every other turn", func(t *testing.T) {
		s := slots16()
		s.began(now, failed())
		require.False(t, s.failingMayBegin(now, true))
		require.True(t, s.failingMayBegin(now, false), "where nobody else waits")
		s.began(now, fresh())
		require.True(t, s.failingMayBegin(now, true))
	})
	t.Run("and half of the time of the only slot", func(t *testing.T) {
		s := &slots{}
		s.resize(1)
		l := failed()
		s.began(now, l)
		s.ended(now.Add(10*time.Second), l, Outcome{Result: Retry, Unavailable: true})
		l = fresh()
		s.began(now.Add(10*time.Second), l)
		s.ended(now.Add(11*time.Second), l, answer)
		require.False(t, s.failingMayBegin(now.Add(19*time.Second), true))
		require.True(t, s.failingMayBegin(now.Add(19*time.Second), false), "where nobody else waits")
		require.True(t, s.failingMayBegin(now.Add(20*time.Second), true))
	})
	t.Run("after an outage they are released one after another", func(t *testing.T) {
		s := slots16()
		s.restart()
		for want := 1; want <= 8; want++ {
			var held []*lane
			for s.failingMayBegin(now, false) {
				held = append(held, failed())
				s.began(now, held[len(held)-1])
			}
			require.Len(t, held, want)
			s.ended(now, held[0], answer)
			for _, l := range held[1:] {
				s.failing--
				delete(s.busy, l)
			}
		}
		require.Equal(t, 8, s.failingMax())
	})
}
