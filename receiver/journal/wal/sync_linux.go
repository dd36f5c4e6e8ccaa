package wal

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData waits until what was written into blocks that are there already is on the disk.
func syncData(file *os.File) error { return unix.Fdatasync(int(file.Fd())) }
