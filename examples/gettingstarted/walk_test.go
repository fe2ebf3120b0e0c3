package gettingstarted_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// program is a program of the page, in a terminal of its own.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of both outputs; closed at the end of the program
	seen  []string
	ended bool
}

// start runs a command of the page. What stands before it is its environment.
func start(t *testing.T, dir, command string) *program {
	t.Helper()
	words := strings.Fields(command)
	var env []string
	for strings.Contains(words[0], "=") {
		env, words = append(env, words[0]), words[1:]
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// Ended by stop.
	cmd := exec.Command(filepath.Join(dir, words[0]), words[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	p := &program{t: t, cmd: cmd, lines: make(chan string, 1000)}
	go func() { // ends with the program
		defer close(p.lines)
		defer out.Close()
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() { p.stop() })
	return p
}

// next returns the next line, and false at the end of the program.
func (p *program) next(ctx context.Context) (string, bool) {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		p.seen = append(p.seen, line)
		return line, ok
	case <-ctx.Done():
		p.t.Fatalf("%s: %v; the output was\n%s", p.cmd, ctx.Err(), strings.Join(p.seen, "\n"))
		return "", false
	}
}

// expect reads on to a line that has a text.
func (p *program) expect(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	for {
		line, ok := p.next(ctx)
		if !ok {
			p.t.Fatalf("%s ended without %q:\n%s", p.cmd, text, strings.Join(p.seen, "\n"))
		}
		if strings.Contains(line, text) {
			return
		}
	}
}

// stop is Ctrl-C, and returns how the program ended.
func (p *program) stop() error {
	if p.ended {
		return nil
	}
	p.ended = true
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	killer := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer killer.Stop()
	for line := range p.lines {
		p.seen = append(p.seen, line)
	}
	return p.cmd.Wait()
}

// run is a command that ends by itself.
func run(t *testing.T, dir, command string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", command)
	cmd.Dir = dir
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// addresses are where a control plane listens, as it writes them.
type addresses struct {
	Secure string `json:"secure"`
	Status string `json:"status"`
}

func (a *addresses) read(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, a); err != nil {
		t.Fatal(err)
	}
}

// TestThePageForNewcomersDoesWhatItSays takes every step of docs/getting-started.md.
// Only addresses differ: the page's may be in use.
func TestThePageForNewcomersDoesWhatItSays(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and runs programs")
	}
	if runtime.GOOS != "linux" {
		t.Skip("needs loopback addresses beside 127.0.0.1")
	}
	page, dir := readPage(t), t.TempDir()
	page.build(dir)
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	yaml := filepath.Join(dir, "yaml", "greeter.yaml")
	config := replace(t, page.block("yaml", "`yaml/greeter.yaml`"), "address: 127.0.0.1", "address: "+host)
	write(t, yaml, config)

	validate, plane, _ := strings.Cut(page.block("sh", "Check it, and start the control plane"), "\n")
	if output, err := run(t, dir, validate); err != nil || strings.TrimSpace(output) != page.quotes(`yaml: ok: .*`) {
		t.Errorf("%s: %v\n%s", validate, err, output)
	}
	plane = strings.TrimSpace(plane) + " --listen 127.0.0.1:0 --status 127.0.0.1:0 --ready-file ready"
	control := start(t, dir, plane)
	control.expect(`"secure"`)
	var at addresses
	at.read(t, filepath.Join(dir, "ready"))
	identities := replace(t, page.block("sh", "## 5. Identities"), "inboard bootstrap", "inboard bootstrap --server "+at.Secure)
	if output, err := run(t, dir, identities); err != nil {
		t.Fatalf("%s: %v\n%s", identities, err, output)
	}

	commands := strings.Split(strings.TrimSpace(replace(t, page.block("sh", "## 6. Run"), "127.0.0.1", host)), "\n")
	if len(commands) != 3 {
		t.Fatalf("%d commands, want two servers and a client", len(commands))
	}
	v1, v2 := start(t, dir, commands[0]), start(t, dir, commands[1])
	v1.expect("serving")
	v2.expect("serving")
	client := start(t, dir, commands[2])
	for line := range strings.Lines(page.block("", "The client prints twice a second")) {
		client.expect(strings.TrimSpace(line))
	}

	t.Log("the canary moves")
	write(t, yaml, replace(t, config, "weight: 90", "weight: 50", "weight: 10", "weight: 50"))
	client.expect("HTTP 200 v2 says hello")
	client.expect("gRPC SERVING [v2 says hello")

	t.Log("a mistake")
	write(t, yaml, replace(t, config, "weight: 90", "wieght: 50"))
	mistake := page.quotes(`yaml/greeter.yaml:[\d:]+ VirtualService hello/greeter:\s+[^` + "`" + `]*`)
	control.expect(mistake)
	if output, err := run(t, dir, "bin/inboard status --control-plane http://"+at.Status); err == nil || !strings.Contains(output, mistake) {
		t.Errorf("status: %v, want %q in\n%s", err, mistake, output)
	}
	client.expect("HTTP 200")
	write(t, yaml, config)

	t.Log("Ada")
	_, ada, _ := strings.Cut(page.quotes(`GRPC_XDS_BOOTSTRAP=caller.json bin/client ada`), " ")
	second := start(t, dir, "GRPC_XDS_BOOTSTRAP=caller.json "+ada)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for range 6 {
		if line, ok := second.next(ctx); !ok || !strings.Contains(line, "v2 says hello") {
			t.Errorf("Ada got %q", line)
		}
	}

	t.Log("v2 ends, and begins again")
	if err := v2.stop(); err != nil {
		t.Errorf("v2 ended with %v", err)
	}
	second.expect("3 attempts: endpoint " + host + ":8082")
	start(t, dir, commands[1]).expect("serving")
	second.expect("HTTP 200 v2")

	t.Log("without an identity")
	if answer, err := plain(t, host); err == nil || !strings.Contains(err.Error(), "connection reset by peer") {
		t.Errorf("without an identity: %q, %v", answer, err)
	}
	write(t, yaml, replace(t, config, "STRICT", "PERMISSIVE"))
	within, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	answer, err := plain(t, host)
	for ; err != nil && within.Err() == nil; answer, err = plain(t, host) {
		runtime.Gosched() // until the change has come
	}
	if answer != "v1 says hello to a stranger" {
		t.Errorf("a stranger got %q, %v", answer, err)
	}

	t.Log("the control plane ends")
	if err := control.stop(); err != nil {
		t.Errorf("the control plane ended with %v", err)
	}
	for len(client.lines) > 0 {
		<-client.lines
	}
	for range 3 {
		client.expect("HTTP 200 v")
		client.expect("gRPC SERVING")
	}
	for _, p := range []*program{client, second, v1} { // servers drain quickly without callers
		if err := p.stop(); err != nil {
			t.Errorf("%s ended with %v", p.cmd, err)
		}
	}
}

// plain calls the first server without the mesh.
func plain(t *testing.T, host string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+":8081/", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(text)), err
}
