package main

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// letGo gives back the pages of the program itself that the start has touched: most of them are not needed again,
// and those that are come back from the system's cache. Only mappings that cannot be written are let go, which are
// the same in the file.
func letGo(log *slog.Logger) {
	program, err := os.Executable()
	if err != nil {
		return // it only costs memory
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return // likewise
	}
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		var from, to uintptr
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil || strings.Contains(rights, "w") || !strings.HasSuffix(lines.Text(), " "+program) {
			continue
		}
		if _, _, number := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); number != 0 {
			log.Debug("memory was not let go", "error", number)
		}
	}
}
