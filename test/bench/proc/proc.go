// Package proc runs the processes that benchmarks measure.
package proc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is one that ends with the benchmark.
type Process struct {
	Log  string // file with what it printed
	cmd  *exec.Cmd
	done chan struct{}
}

// patience is how long a process may take to end.
const patience = time.Minute

// Start starts a program. What it prints goes to a file.
func Start(ctx context.Context, log, program string, args ...string) (*Process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	p := &Process{Log: log, cmd: exec.CommandContext(ctx, program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	if err := p.cmd.Start(); err != nil {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // it is told to end
		_ = file.Close() // a log
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop ends the process, and waits for that.
func (p *Process) Stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// pids are those of the process and its children, as nginx has some.
func (p *Process) pids() []int {
	pids := []int{p.cmd.Process.Pid}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pids[0]))
	if err != nil {
		return pids
	}
	for _, field := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// CPU is the time that the process and its children have worked so far. Linux counts it in hundredths of
// a second.
func (p *Process) CPU() (total time.Duration) {
	for _, pid := range p.pids() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ") // the name may have spaces
		fields := strings.Fields(rest)
		for _, field := range fields[11:13] { // user and system time (proc_pid_stat(5))
			ticks, _ := strconv.Atoi(field)
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total
}

// MiB is a field of memory in /proc/PID/status, of the process and its children: VmRSS is what they hold
// now, VmHWM what they held at most.
func (p *Process) MiB(field string) (total float64) {
	for _, pid := range p.pids() {
		total += MiB(pid, field)
	}
	return total
}

// MiB is the same of one process; 0 when it has ended.
func MiB(pid int, field string) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
