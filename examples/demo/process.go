package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 15 * time.Second
)

// process is a program that the demo has started. Whoever starts it ends it,
// with kill or stop.
type process struct {
	name string
	log  string // the file with what it writes to standard error
	cmd  *exec.Cmd
	// ready is the line of JSON that the program prints when it serves.
	ready map[string]string

	asked atomic.Bool   // to end
	ended chan struct{} // closed when it has
	err   error         // why; set when ended is closed
}

// start runs a program and waits for its line of JSON. onEnd is called if the
// process ends without being asked.
func start(ctx context.Context, name, log string, env []string, onEnd func(error), binary string, args ...string) (*process, error) {
	stderr, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer stderr.Close() // the process has its own copy
	p := &process{name: name, log: log, ended: make(chan struct{})}
	// Not bound to ctx: it ends by stop, in order, and not all at once.
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), binary, args...) //nolint:gosec // what we built
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = stderr
	p.cmd.SysProcAttr = apart()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	first := make(chan []byte, 1)
	go func() { // ends with the process; kill and stop wait for it
		defer close(p.ended)
		reader := bufio.NewReader(stdout)
		line, _ := reader.ReadBytes('\n') // at the end of the process it is cut short
		first <- line
		_, _ = io.Copy(io.Discard, reader)
		p.err = p.cmd.Wait()
		if !p.asked.Load() {
			onEnd(p.failure("ended by itself"))
		}
	}()
	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case line := <-first:
		if err = json.Unmarshal(line, &p.ready); err == nil {
			return p, nil
		}
		p.kill()
		return nil, p.failure("did not get ready")
	case <-timeout.C:
		p.kill()
		return nil, p.failure(fmt.Sprintf("did not get ready in %v", readyTimeout))
	case <-ctx.Done():
		p.kill()
		return nil, context.Cause(ctx)
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process at once, without a chance to say goodbye.
func (p *process) kill() {
	p.asked.Store(true)
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// stop asks the process to end and waits until it has.
func (p *process) stop() error {
	p.asked.Store(true)
	if p.cmd.Process.Signal(syscall.SIGTERM) != nil {
		p.kill() // it has ended, or the system has no such signal
		return nil
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-p.ended:
	case <-timeout.C:
		p.kill()
		return p.failure(fmt.Sprintf("did not end in %v", stopTimeout))
	}
	if p.err != nil {
		return p.failure("did not end well")
	}
	return nil
}

// failure describes the end of the process with the last lines of its log.
func (p *process) failure(what string) error {
	text, err := os.ReadFile(p.log)
	log := "its log is empty"
	if trimmed := strings.TrimSpace(string(text)); trimmed != "" {
		lines := strings.Split(trimmed, "\n")
		log = "its log ends with\n  " + strings.Join(lines[max(0, len(lines)-10):], "\n  ")
	}
	return errors.Join(fmt.Errorf("%s %s (%v); %s", p.name, what, p.cmd.ProcessState, log), err)
}
