package controlplane

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func TestAStreamWithoutARequestIsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}})
		network := serveMemory(t, s)
		served := newDelta(t, dial(t, network, "plaintext:1"), node("shop", "customer"))
		served.subscribe(eds, cluster("payment"))
		served.want(eds, []string{cluster("payment")}, nil)
		silent := make([]*deltaClient, 100)
		var conn *grpc.ClientConn
		for i := range silent {
			if i%maxCalls == 0 {
				conn = dial(t, network, "plaintext:1")
			}
			silent[i] = newDelta(t, conn, node("shop", "customer"))
		}
		time.Sleep(firstRequestTime - time.Second)
		synctest.Wait()
		if got := len(s.Status().Clients); got != 101 {
			t.Errorf("%d streams before the time is over", got)
		}
		time.Sleep(2 * time.Second)
		for _, c := range silent {
			if got := status.Convert(c.end()); got.Code() != codes.Unavailable || !strings.Contains(got.Message(), "no request came") {
				t.Fatalf("the stream ended with %v", got)
			}
		}
		time.Sleep(time.Hour)
		served.quiet()
		if got := s.Status(); len(got.Clients) != 1 || got.Totals.Silent != 100 {
			t.Errorf("%d streams, %+v", len(got.Clients), got.Totals)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := mustNew(t, Config{Files: shops(1, 1), MaxStreams: 2, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		network := serveMemory(t, s)
		names := []string{cluster("s0")}
		join := func() *deltaClient {
			c := newDelta(t, dial(t, network, "plaintext:1"), node("shop", ""))
			c.subscribe(eds, names...)
			return c
		}
		first, second := join(), join()
		first.want(eds, names, nil)
		second.want(eds, names, nil)
		for range 10 {
			if got := status.Convert(join().end()); got.Code() != codes.ResourceExhausted || !strings.Contains(got.Message(), "there are 2 streams") {
				t.Fatalf("the stream ended with %v", got)
			}
		}
		first.quiet()
		second.quiet()
		if got := s.Status().Totals; got.Refused != 10 || got.Streams != 2 {
			t.Errorf("totals %+v", got)
		}
		if err := second.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		join().want(eds, names, nil) // there is room again
		if got := strings.Count(log.String(), "stream refused"); got != 1 {
			t.Errorf("%d lines of refused streams, want one a minute", got)
		}
	})
}

func TestANegativeBoundOfStreamsIsAMistake(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{MaxStreams: -1}); err == nil || !strings.Contains(err.Error(), "MaxStreams -1 is negative") {
		t.Errorf("error %v", err)
	}
}

// A client that has something else to say of each response fills no log.
func TestTheRejectionsOfAClientAreLoggedAtARate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := mustNew(t, Config{Files: shops(1, 1), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		network := serveMemory(t, s)
		c := newDelta(t, dial(t, network, "plaintext:1"), node("shop", ""))
		c.subscribe(eds, cluster("s0"))
		response := c.next()
		reject := func(n int) {
			for i := range n {
				c.nack(response, fmt.Sprint("reason ", time.Now().UnixNano(), i))
			}
			synctest.Wait()
		}
		reject(1000)
		if got := strings.Count(log.String(), "client rejected configuration"); got != linesOfOne {
			t.Errorf("%d lines for 1000 rejections, want %d", got, linesOfOne)
		}
		time.Sleep(time.Minute)
		reject(1)
		if !strings.Contains(log.String(), "unlogged=990") {
			t.Errorf("log %q, want the number of those without a line", log.String()[max(0, log.Len()-500):])
		}
		if got := s.Status(); got.Totals.NACKs != 1001 || got.Clients[0].Types[eds].NACK == nil || !strings.Contains(got.Clients[0].Types[eds].NACK.Error, "reason") {
			t.Errorf("status %+v", got)
		}
	})
}
