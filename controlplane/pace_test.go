package controlplane

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAClientThatComesAgainDoesNotFillTheLog: it rejects, goes, and comes again, each
// time with something else to say.
func TestAClientThatComesAgainDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := mustNew(t, Config{Files: shops(1, 1), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		network := serveMemory(t, s)
		conn := dial(t, network, "plaintext:1")
		again := func(id string) {
			c := newDelta(t, conn, node(id, ""))
			c.subscribe(eds, cluster("s0"))
			c.nack(c.next(), fmt.Sprint("reason ", time.Now().UnixNano()))
			synctest.Wait()
			if err := c.stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		lines := func() (connected, rejected, disconnected int) {
			text := log.String()
			return strings.Count(text, "client connected"), strings.Count(text, "client rejected configuration"), strings.Count(text, "client disconnected")
		}
		for range 100 {
			again("shop")
		}
		if connected, rejected, disconnected := lines(); connected != linesOfOne || rejected != linesOfOne || disconnected != linesOfOne {
			t.Errorf("%d, %d and %d lines for 100 streams, want %d of each", connected, rejected, disconnected, linesOfOne)
		}
		again("bank") // what one client does keeps no other from the log
		if _, rejected, _ := lines(); rejected != linesOfOne+1 {
			t.Errorf("%d lines, want one of the other client", rejected-linesOfOne)
		}
		time.Sleep(time.Minute)
		again("shop")
		if !strings.Contains(log.String(), "unlogged=90") {
			t.Errorf("log %q, want the number of those without a line", log.String()[max(0, log.Len()-500):])
		}
	})
}

// TestClientsWithManyNamesDoNotFillTheLog: a node ID is what the client says.
func TestClientsWithManyNamesDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p paced
		logged := 0
		for i := range 3 * maxPaced {
			if ok, _ := p.allow(fmt.Sprint(i)); ok {
				logged++
			}
		}
		if logged != linesOfAll || len(p.of) > maxPaced {
			t.Errorf("%d lines, %d clients remembered", logged, len(p.of))
		}
		time.Sleep(10 * time.Second)
		for i := range maxPaced {
			if ok, _ := p.allow(fmt.Sprint("later ", i)); ok {
				logged++
			}
		}
		if logged != linesOfAll+10 {
			t.Errorf("%d lines 10 s later", logged-linesOfAll)
		}
	})
}
