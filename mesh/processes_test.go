package mesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

// hopVariable makes this program a hop of [TestBT7_DeadlinesOverThreeProcesses]: the
// name of the host that it calls, or "last".
const hopVariable = "INBOARD_TEST_HOP"

func TestMain(m *testing.M) {
	if next := os.Getenv(hopVariable); next != "" {
		if err := runHop(next); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// Package net makes a channel when it first reads how names are resolved. Made in a
	// bubble, it could be used in no other.
	_, _ = net.LookupHost("localhost")
	os.Exit(m.Run())
}

// hop is what a process saw of a request. Times are in nanoseconds of the machine's
// clock, which the processes share.
type hop struct {
	Addr            string `json:"addr"`
	Arrived         int64  `json:"arrived"`
	Deadline        int64  `json:"deadline"`
	Ended           int64  `json:"ended"`
	Canceled        bool   `json:"canceled"`
	Err             string `json:"err"`
	WithoutDeadline bool   `json:"withoutDeadline"`
	Forwarded       bool   `json:"forwarded"`
}

// runHop serves until its input ends, and prints what it saw as lines of JSON.
func runHop(next string) error {
	ctx := context.Background()
	m, err := mesh.New(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	ln, err := m.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(hop{Addr: ln.Addr().String()}); err != nil {
		return err
	}
	client := m.HTTPClient()
	handler := func(w http.ResponseWriter, r *http.Request) {
		seen := hop{Arrived: time.Now().UnixNano()}
		deadline, ok := r.Context().Deadline()
		seen.Deadline, seen.WithoutDeadline = deadline.UnixNano(), !ok
		if next == "last" {
			<-r.Context().Done()
		} else {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+next+"/", http.NoBody)
			if err == nil {
				var resp *http.Response
				if resp, err = client.Do(req); err == nil {
					_ = resp.Body.Close()
				}
			}
			seen.Forwarded = true
			if err != nil {
				seen.Err = err.Error()
			}
		}
		seen.Ended = time.Now().UnixNano()
		seen.Canceled = r.Context().Err() != nil
		if err := out.Encode(seen); err != nil {
			panic(err)
		}
		w.WriteHeader(http.StatusGatewayTimeout)
	}
	server := &http.Server{Handler: m.Handler(http.HandlerFunc(handler)), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }() // until the process ends
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// hopProcess is a hop that runs.
type hopProcess struct {
	addr string
	seen chan hop // closed when the process has ended
}

func startHop(t *testing.T, w *worldtest.World, next string) *hopProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), hopVariable+"="+next, "GRPC_XDS_BOOTSTRAP_CONFIG="+w.BootstrapJSON("shop", "payment", map[string]string{"app": "payment"}))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &hopProcess{seen: make(chan hop, 100)}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(p.seen)
		for lines := json.NewDecoder(stdout); ; {
			var h hop
			if lines.Decode(&h) != nil {
				return // it has ended
			}
			p.seen <- h
		}
	})
	t.Cleanup(func() {
		_ = stdin.Close()
		reading.Wait()
		_ = cmd.Wait() // what it had to say it has said
	})
	p.addr = p.next(t).Addr
	return p
}

// next is what the process saw next.
func (p *hopProcess) next(t *testing.T) hop {
	t.Helper()
	select {
	case h, ok := <-p.seen:
		if !ok {
			t.Fatal("a hop has ended")
		}
		return h
	case <-time.After(30 * time.Second):
		t.Fatal("a hop saw no request")
	}
	return hop{}
}

// wholeMilliseconds is how a header tells what is left, in nanoseconds: rounded up, so that
// it is the caller whose time is over first, as grpc-go rounds its own.
func wholeMilliseconds(left int64) int64 {
	const ms = int64(time.Millisecond)
	return (left + ms - 1) / ms * ms
}

// Three processes, each with its own mesh, call one another; the last never answers. Every
// hop learns of what its caller has left, never gets more than that in whole milliseconds,
// and ends when that is over. The machine may be busy: of several calls the best must be
// within 30 ms.
func TestBT7_DeadlinesOverThreeProcesses(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes")
	}
	w := worldtest.New(t, "")
	hosts := []string{"first.shop.svc.cluster.local:80", "second.shop.svc.cluster.local:80", "third.shop.svc.cluster.local:80"}
	hops := []*hopProcess{startHop(t, w, hosts[1]), startHop(t, w, hosts[2]), startHop(t, w, "last")}
	var yaml strings.Builder
	for i, p := range hops {
		host, _, _ := strings.Cut(hosts[i], ":")
		_, port, err := net.SplitHostPort(p.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&yaml, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hop-%d, namespace: shop}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: %s}]
  endpoints: [{address: 127.0.0.1, serviceAccount: payment}]
`, i, host, port)
	}
	w.Apply(yaml.String())
	customer := w.Join("shop", "customer", nil)

	const tolerance = 30 * time.Millisecond
	best := time.Hour
	// The first call opens all connections, and has the time for it.
	for limit, attempts := 5*time.Second, 0; attempts < 20 && best > tolerance; limit, attempts = time.Second, attempts+1 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		start := time.Now()
		deadline := start.Add(limit).UnixNano()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+hosts[0]+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := customer.HTTPClient().Do(req)
		cancel()
		if err == nil {
			_ = resp.Body.Close()
		}
		ended := time.Now().UnixNano()
		worst := time.Duration(ended - deadline)
		left := int64(limit)
		for i, p := range hops {
			h := p.next(t)
			switch {
			case h.WithoutDeadline:
				t.Fatalf("hop %d was not told how long its caller waits", i+1)
			case i < 2 && !h.Forwarded, i == 2 && !h.Canceled:
				t.Fatalf("hop %d: %+v", i+1, h)
			case i < 2 && (h.Err == "" || !h.Canceled) && h.Ended < h.Deadline-int64(tolerance):
				// The 504 of the next hop may be there a moment earlier. This was more.
				t.Fatalf("hop %d ended before its time: %+v", i+1, h)
			case h.Deadline-h.Arrived > wholeMilliseconds(left):
				t.Errorf("hop %d got %v, its caller had %v left", i+1, time.Duration(h.Deadline-h.Arrived), time.Duration(left))
			}
			left = h.Deadline - h.Arrived
			worst = max(worst, time.Duration(h.Deadline-deadline), time.Duration(h.Ended-deadline))
		}
		best = min(best, worst)
	}
	if best > tolerance {
		t.Errorf("the best call ended %v after its deadline, or with a hop that had so much longer", best)
	}
	t.Logf("the best call was within %v", best)
}
