package natstest

import (
	"os"
	"path/filepath"

	"github.com/stretchr/testify/require"
)

// Backup is a copy of what a server has on its disk.
type Backup string

func (s *Server) store() string { return filepath.Join(filepath.Dir(s.conf), "js") }

// Backup copies the server's store. The server must not run.
func (s *Server) Backup() Backup {
	s.t.Helper()
	folder := s.t.TempDir()
	require.NoError(s.t, os.CopyFS(folder, os.DirFS(s.store())))
	return Backup(folder)
}

// Restore puts back what was in the store at the time of a backup: all of it, or some streams of the account that is
// there by default. The server must not run.
func (s *Server) Restore(b Backup, streams ...string) {
	s.t.Helper()
	parts := []string{"."}
	if len(streams) > 0 {
		parts = nil
		for _, stream := range streams {
			parts = append(parts, filepath.Join("jetstream", "$G", "streams", stream))
		}
	}
	for _, part := range parts {
		require.NoError(s.t, os.RemoveAll(filepath.Join(s.store(), part)))
		require.NoError(s.t, os.CopyFS(filepath.Join(s.store(), part), os.DirFS(filepath.Join(string(b), part))))
	}
}
