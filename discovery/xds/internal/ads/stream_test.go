package ads

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
)

// A name is given up, removed by the server and wanted again before the sender
// has run: nothing is sent for it, so the timer is all that can end the wait.
func TestTimerRunsForANameThatWasLostBetweenTwoWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, err := NewClient(Options{
			Servers: []ServerConfig{{Name: "test", Dial: func(ctx context.Context) (*grpc.ClientConn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}},
			Types: []Type{{URL: fuzzFull, Name: "Full", FullStateInSotW: true, Decode: fuzzDecode}},
			Node:  &corev3.Node{Id: "n"},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		r := &fuzzRun{t: t, client: client, servers: []*fuzzServer{{link: client.links[0]}}}
		r.reconnect(r.servers[0])
		first := new(fuzzWatcher)
		cancel := client.Watch(fuzzFull, "a", first)
		r.drain(r.servers[0])
		handle := func(line string) {
			if err := r.servers[0].handle(t.Context(), fuzzResponse(false, fuzzFull, line)); err != nil {
				t.Fatal(err)
			}
			client.serial.flush()
		}
		handle("a=1")
		r.drain(r.servers[0])
		cancel()
		handle("")
		second := new(fuzzWatcher)
		client.Watch(fuzzFull, "a", second)
		r.drain(r.servers[0])
		time.Sleep(absenceTimeout + time.Second)
		synctest.Wait()
		second.mu.Lock()
		defer second.mu.Unlock()
		if second.valued || second.notFound != 1 {
			t.Errorf("valued %v, %d times not found; want no value and to be told", second.valued, second.notFound)
		}
	})
}
