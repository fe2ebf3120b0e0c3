package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// roleFlag makes this program one of the processes that it starts.
const roleFlag = "-role"

// process is one of this program's, which takes commands line by line and answers
// each with a line of JSON.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

// start starts a role. It reads its first line, which says that it is ready.
func start(ctx context.Context, env []string, ready any, role ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{roleFlag}, role...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	p := &process{cmd: cmd}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.lines = bufio.NewScanner(stdout)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.read(ready); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w", strings.Join(role, " "), err)
	}
	return p, nil
}

// ask sends a command and reads the answer.
func (p *process) ask(command string, answer any) error {
	if _, err := io.WriteString(p.stdin, command+"\n"); err != nil {
		return err
	}
	return p.read(answer)
}

func (p *process) read(answer any) error {
	if !p.lines.Scan() {
		if err := p.lines.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(p.lines.Bytes(), answer)
}

// stop ends the process: it ends with its input.
func (p *process) stop() {
	_ = p.stdin.Close()
	late := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	_ = p.cmd.Wait() // what it measured has been read already
}

// usage is what a process has used so far.
type usage struct {
	CPU    time.Duration
	Allocs uint64
	// Bytes are those that were allocated.
	Bytes uint64
}

// ownUsage is that of this process.
func ownUsage() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()), Allocs: m.Mallocs, Bytes: m.TotalAlloc}, nil
}

func (u usage) since(before usage) usage {
	return usage{CPU: u.CPU - before.CPU, Allocs: u.Allocs - before.Allocs, Bytes: u.Bytes - before.Bytes}
}

// footprint is the memory of a process, in bytes.
type footprint struct {
	// Live is what of the heap is reachable.
	Live uint64
	// Resident is what the process has of the machine's memory.
	Resident uint64
}

// ownFootprint is that of this process.
func ownFootprint() (footprint, error) {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held has gone
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return footprint{}, err
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return footprint{}, fmt.Errorf("/proc/self/statm: %q is too short", statm)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return footprint{Live: m.HeapAlloc, Resident: pages * uint64(os.Getpagesize())}, err
}

// cpuOf is the CPU time of another program's process, in the kernel's ticks of
// 10 ms.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may contain anything.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	const utime, stime, tick = 11, 12, 10 * time.Millisecond
	if len(fields) <= stime {
		return 0, fmt.Errorf("/proc/%d/stat: %q is too short", pid, stat)
	}
	total := time.Duration(0)
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		total += time.Duration(n) * tick
	}
	return total, nil
}

// reply writes a line of JSON to the process that started this one.
func reply(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }
