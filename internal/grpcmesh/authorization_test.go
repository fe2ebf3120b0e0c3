package grpcmesh_test

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
)

const emptyCall = "/grpc.testing.TestService/EmptyCall"

// guarded denies a path, and sees to it by connections of a remote address too.
func guarded(path string) *discovery.Inbound {
	in := plaintext(endpoint)
	anybody := []discovery.RBACRule{{Kind: discovery.RBACAny}}
	in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: &discovery.RBACRules{
		Action: discovery.RBACDeny,
		Policies: []discovery.RBACPolicy{{
			Permissions: []discovery.RBACRule{{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Value: path}}}, Principals: anybody,
		}},
	}}}}
	return in
}

// rawCall sends a :path and further fields as they are, and returns the gRPC
// status or what became of the stream.
func (f *fixture) rawCall(path string, fields ...[2]string) string {
	f.tb.Helper()
	conn, err := f.network.DialContext(f.tb.Context(), "tcp", endpoint)
	if err != nil {
		f.tb.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = framer.WriteSettings()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range append([][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", path}, {"content-type", "application/grpc"}, {"te", "trailers"}}, fields...) {
		_ = encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = framer.WriteData(1, true, make([]byte, 5)) // an empty message
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch h := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range h.RegularFields() {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}

// TestV01_BA04_APathWithoutASlashReachesNobody: nor does any other way to write a
// denied method.
func TestV01_BA04_APathWithoutASlashReachesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{}
		f.serveAs(guarded(emptyCall), b)
		const bare = "grpc.testing.TestService/EmptyCall"
		for path, want := range map[string]string{
			emptyCall: "7", // PERMISSION_DENIED
			bare:      "12", "": "12", "*": "12", "/": "12", "//" + bare: "12", emptyCall + "/": "12",
			"/grpc.testing.TestService//EmptyCall": "12", "http://x" + emptyCall: "12", "/./" + bare: "12",
			"/%67rpc.testing.TestService/EmptyCall": "12", "/GRPC.testing.TestService/EmptyCall": "12", emptyCall + "?x": "12",
		} {
			got := f.rawCall(path)
			if got != want && got != "reset" && got != "closed" || path == emptyCall && got != want {
				t.Errorf("%q: status %s, want %s", path, got, want)
			}
		}
		if n := b.calls.Load(); n != 0 {
			t.Errorf("%d calls got through", n)
		}
	})
}

// TestS36_BA13_APolicyActsOnTheNextCallOfAnOpenConnection: both about calls and
// about connections.
func TestS36_BA13_APolicyActsOnTheNextCallOfAnOpenConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{}
		f.serveAs(guarded("/other"), b)
		client := f.plainClient(endpoint)
		call := func() codes.Code {
			_, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
			return status.Code(err)
		}
		if code := call(); code != codes.OK {
			t.Fatal(code)
		}
		f.source.setInbound(endpoint, guarded(emptyCall))
		synctest.Wait()
		if code := call(); code != codes.PermissionDenied {
			t.Errorf("a denied call: %v", code)
		}
		closed := guarded("/other")
		closed.Chains[0].Network = []*discovery.RBAC{{Rules: &discovery.RBACRules{}}} // allows nobody
		f.source.setInbound(endpoint, closed)
		synctest.Wait()
		if code := call(); code != codes.PermissionDenied {
			t.Errorf("a call over a denied connection: %v", code)
		}
		f.source.setInbound(endpoint, guarded("/other"))
		synctest.Wait()
		if code := call(); code != codes.OK || b.calls.Load() != 2 {
			t.Errorf("allowed again: %v after %d calls", code, b.calls.Load())
		}
	})
}
