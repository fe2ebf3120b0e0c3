package grpcmesh_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// refuse serves HTTP/2 at an address and processes no request: each is reset as
// refused, or ends its connection with a GOAWAY that excludes it.
func (f *fixture) refuse(address string, goAway bool) (arrived *atomic.Int64) {
	f.tb.Helper()
	r := &refuser{goAway: goAway, release: make(chan struct{})}
	close(r.release)
	f.serveRefusing(address, r)
	return &r.arrived
}

// refuser is a server that reads requests and processes none.
type refuser struct {
	goAway bool
	// release is closed when requests are to be refused. What comes before is taken.
	release chan struct{}
	arrived atomic.Int64
}

func (f *fixture) serveRefusing(address string, r *refuser) {
	f.tb.Helper()
	ln, err := f.network.Listen(address)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.tb.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go r.refuse(conn) // ends with the connection
		}
	}()
}

func (r *refuser) refuse(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	var writing sync.Mutex
	say := func(f func() error) {
		writing.Lock()
		defer writing.Unlock()
		_ = f()
	}
	var refusals sync.WaitGroup
	defer refusals.Wait()
	say(func() error {
		return framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	})
	say(func() error { return framer.WriteWindowUpdate(0, 1<<20) })
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				say(framer.WriteSettingsAck)
			}
		case *http2.HeadersFrame:
			r.arrived.Add(1)
			id := frame.StreamID
			refusals.Go(func() {
				<-r.release
				if r.goAway {
					say(func() error { return framer.WriteGoAway(0, http2.ErrCodeNo, nil) })
					_ = conn.Close()
					return
				}
				say(func() error { return framer.WriteRSTStream(id, http2.ErrCodeRefusedStream) })
			})
		}
	}
}

// TestBR12_GRPCsTransparentRetriesAreCounted: gRPC would send again by itself what a
// server did not process, once for each attempt, and nobody saw it. Such an attempt is
// the mesh's, made once a call whatever the policy, and observers see each that arrives.
func TestBR12_GRPCsTransparentRetriesAreCounted(t *testing.T) {
	t.Parallel()
	for _, goAway := range []bool{false, true} {
		for _, retries := range []uint32{0, 4} {
			for _, kind := range callKinds {
				t.Run(fmt.Sprintf("GOAWAY %t, %d retries, %s", goAway, retries, kind.name), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						const calls = 5
						f := newFixture(t)
						arrived := f.refuse(endpoint, goAway)
						f.configure(retrying(retries, retry.OnGRPCUnavailable), cluster("main", endpoint))
						client := f.client()
						for range calls {
							err := kind.call(withTimeout(t), client)
							if status.Code(err) != codes.Unavailable {
								t.Errorf("it ended with %v", err)
							}
						}
						synctest.Wait()
						want := calls * (2 + int(retries)) // with the one that no policy is asked for
						seen := 0
						for _, a := range f.seen.tried() {
							if seen++; a.Outcome.Kind != outcome.RefusedStream {
								t.Errorf("an attempt ended as %v (%v)", a.Outcome.Kind, a.Outcome.Err)
							}
						}
						if n := int(arrived.Load()); n != want || seen != want {
							t.Errorf("%d requests arrived and %d attempts were seen, want %d of each", n, seen, want)
						}
					})
				})
			}
		}
	}
}

// TestBR12_AStreamThatIsRefusedGoesOn: what was sent on it is sent again, in order.
func TestBR12_AStreamThatIsRefusedGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		arrived := f.refuse(endpoint, false)
		const other = "10.0.0.2:9090"
		b := new(backend)
		f.serve(other, b)
		route := forward("main")
		route.Forward.Retry = &retry.Policy{On: retry.OnRefusedStream, MaxRetries: 8, AvoidPreviousHosts: true}
		f.configure(route, cluster("main", endpoint, other))
		client := f.client()
		for range 8 {
			stream, err := client.FullDuplexCall(withTimeout(t))
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if err := stream.Send(outputRequest(strconv.Itoa(i))); err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				time.Sleep(time.Millisecond) // the refusal comes between messages
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				out, err := stream.Recv()
				if err != nil || string(out.GetPayload().GetBody()) != strconv.Itoa(i) {
					t.Fatalf("answer %d: %v, %v", i, out, err)
				}
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("it ended with %v", err)
			}
		}
		if arrived.Load() == 0 {
			t.Error("no stream was refused")
		}
		f.checkNothingCounted()
	})
}

// TestBR12_AnUploadThatIsRefusedGoesOn: what a server has not processed, such as one
// that drains, is sent again up to the 256 KiB that gRPC keeps, where a retry of the
// policy has 64 KiB. A message that is sent when the refusal is known already is none
// of what must be kept.
func TestBR12_AnUploadThatIsRefusedGoesOn(t *testing.T) {
	t.Parallel()
	const other, overhead = "10.0.0.2:9090", 13 // of a message of between 16384 bytes and 2 MiB
	tests := []struct {
		name  string
		sizes []int
		known bool // the refusal comes before the last message
		want  codes.Code
	}{
		{"three messages of 40 KB", []int{40_000, 40_000, 40_000}, true, codes.OK},
		{"one of 1 MB", []int{1 << 20}, true, codes.OK},
		{"256 KiB and a large one", []int{64<<10 - overhead, 64<<10 - overhead, 64<<10 - overhead, 64<<10 - overhead, 1 << 20}, true, codes.OK},
		{"256 KiB and a byte", []int{64<<10 - overhead, 64<<10 - overhead, 64<<10 - overhead, 64<<10 - overhead + 1}, false, codes.Unavailable},
		{"1024 messages", slices.Repeat([]int{1}, 1024), false, codes.OK},
		{"1025 messages", slices.Repeat([]int{1}, 1025), false, codes.Unavailable},
	}
	for _, goAway := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("GOAWAY %t, %s", goAway, tt.name), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					refused := &refuser{goAway: goAway, release: make(chan struct{})}
					f.serveRefusing(endpoint, refused)
					f.serve(other, new(backend))
					f.configure(forward("main"), cluster("main", endpoint))
					client := f.client()
					stream, err := client.StreamingInputCall(withTimeout(t))
					if err != nil {
						t.Fatal(err)
					}
					f.configure(forward("main"), cluster("main", other))
					want := 0
					for i, size := range tt.sizes {
						if i == len(tt.sizes)-1 && tt.known {
							close(refused.release)
							synctest.Wait()
						}
						if err := stream.Send(inputRequest(size)); err != nil {
							t.Fatalf("message %d: %v", i, err)
						}
						want += size
						synctest.Wait()
					}
					if !tt.known {
						close(refused.release)
					}
					reply, err := stream.CloseAndRecv()
					if status.Code(err) != tt.want || err == nil && int(reply.GetAggregatedPayloadSize()) != want {
						t.Errorf("%d of %d bytes, %v", reply.GetAggregatedPayloadSize(), want, err)
					}
					if n := refused.arrived.Load(); n != 1 {
						t.Errorf("%d streams were refused, want one", n)
					}
				})
			})
		}
	}
}
