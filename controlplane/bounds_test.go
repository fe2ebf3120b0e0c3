package controlplane

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Over delta names add up from request to request, each of which may have megabytes.
func TestTheNamesOfAClientAreBoundedInBytes(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Server, dialled func() *deltaClient) {
		c := dialled()
		const each = 2 << 20
		for i := range maxNameBytes / each {
			c.subscribe(eds, fmt.Sprint(i, strings.Repeat("x", each-1)))
			c.next() // that there is no such resource
		}
		c.subscribe(eds, "one more")
		synctest.Wait()
		if got := status.Convert(c.end()); got.Code() != codes.ResourceExhausted || !strings.Contains(got.Message(), "names of one type with more than") {
			t.Errorf("the stream ended with %v", got)
		}
	})
}

// What a stream may have at all it may also ask for at once, as each request of the
// state of the world does.
func TestARequestMayHaveAsManyBytesAsTheNamesOfAClient(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(eds, strings.Repeat("x", maxNameBytes-2), strings.Repeat("y", 3))
		synctest.Wait()
		if got := status.Convert(c.end()); got.Code() != codes.ResourceExhausted || !strings.Contains(got.Message(), "names of one type with more than") {
			t.Errorf("the stream ended with %v, want the bound of names and not of the request", got)
		}
	})
}

// That a text was logged is remembered, and not the text. It is no parallel test,
// because the others have memory of their own.
func TestTextsOfClientsAreNotKept(t *testing.T) {
	var s seen
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const each = 1 << 20
	for i := range 100 {
		text := fmt.Sprint(i, strings.Repeat("x", each))
		if !s.first(text) || s.first(text) {
			t.Fatal("a text is not told the first time, or the second")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 50*each {
		t.Errorf("%d bytes are kept", kept)
	}
	runtime.KeepAlive(&s)
}
