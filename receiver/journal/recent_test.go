package journal

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
)

func recordOf(seq uint64, size int) *Record {
	return &Record{Seq: seq, Lane: fmt.Sprint("lane", seq), Request: event.Request{Body: make([]byte, size)}}
}

// TestRecentIsBounded: by number and by size, and what is forgotten is not claimed to be known.
func TestRecentIsBounded(t *testing.T) {
	var r recent
	_, ok := r.entries(0, 10)
	require.False(t, ok, "nothing is known yet")
	require.Nil(t, r.get(1))
	for seq := uint64(11); seq <= 10+2*maxRecent; seq++ {
		r.add([]*Record{recordOf(seq, 10)})
	}
	last := uint64(10 + 2*maxRecent)
	require.Nil(t, r.get(last-maxRecent))
	require.Equal(t, last, r.get(last).Seq)
	require.Equal(t, maxRecent*10, r.bytes)
	_, ok = r.entries(last-maxRecent-1, 10)
	require.False(t, ok)
	entries, ok := r.entries(last-maxRecent, 3)
	require.True(t, ok)
	require.Equal(t, []Entry{{last - maxRecent + 1, fmt.Sprint("lane", last-maxRecent+1)}, {last - maxRecent + 2, fmt.Sprint("lane", last-maxRecent+2)}, {last - maxRecent + 3, fmt.Sprint("lane", last-maxRecent+3)}}, entries)
	entries, ok = r.entries(last, 3)
	require.True(t, ok)
	require.Empty(t, entries)

	r.drop([]uint64{last - 5, 1})
	require.Nil(t, r.get(last-5))
	_, ok = r.entries(last-7, 10)
	require.False(t, ok, "one is missing: whether it is kept is for the file to say")

	r.add([]*Record{recordOf(last+1, maxRecentBytes), recordOf(last+2, maxRecentBytes)})
	require.Nil(t, r.get(last))
	require.Nil(t, r.get(last+1))
	require.Equal(t, last+2, r.get(last+2).Seq)
	require.Equal(t, maxRecentBytes, r.bytes)
}

// TestRecentAndFileAgree: what comes from memory is what is read from the file by the next process.
func TestRecentAndFileAgree(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	j, err := Open(t.Context(), file, Options{})
	require.NoError(t, err)
	_, err = j.OpenCursor("a")
	require.NoError(t, err)
	for i := range 20 {
		_, err := j.Append(t.Context(), Record{ID: fmt.Sprint(i), Type: event.Ping, Lane: fmt.Sprint(i % 3), Decoded: &event.Decoded{}, Request: event.Request{Method: "POST", Body: []byte("x")}}, nil)
		require.NoError(t, err)
	}
	before, err := j.Entries(5, 10)
	require.NoError(t, err)
	one, err := j.Get(7)
	require.NoError(t, err)
	require.NotNil(t, one.Decoded)
	require.NoError(t, j.Close())

	j, err = Open(t.Context(), file, Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, j.Close()) }()
	after, err := j.Entries(5, 10)
	require.NoError(t, err)
	require.Equal(t, before, after)
	again, err := j.Get(7)
	require.NoError(t, err)
	require.Nil(t, again.Decoded)
	one.Decoded = nil
	one.Request.ReceivedAt = again.Request.ReceivedAt
	require.Equal(t, one, again)
}
