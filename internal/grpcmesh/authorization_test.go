package grpcmesh_test

import (
	"bytes"
	"io"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
)

const emptyCall = "/grpc.testing.TestService/EmptyCall"

// guarded denies a method, and sees to it by connections of a remote address too.
func guarded(method string) *discovery.Inbound {
	in := plaintext(endpoint)
	anybody := []discovery.RBACRule{{Kind: discovery.RBACAny}}
	in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: &discovery.RBACRules{
		Action: discovery.RBACDeny,
		Policies: []discovery.RBACPolicy{{
			Permissions: []discovery.RBACRule{{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Value: method}}}, Principals: anybody,
		}},
	}}}}
	return in
}

// rawCall sends a :path and further fields as they are, and returns the gRPC
// status or what became of the stream.
func (f *fixture) rawCall(target string, fields ...[2]string) string {
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
	for _, h := range append([][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", target}, {"content-type", "application/grpc"}, {"te", "trailers"}}, fields...) {
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

// TestG20_V01_AMethodHasOneSpelling: a server that hands on what it does not know, and
// is not exact about names, is asked for no other spelling of a denied method.
func TestG20_V01_AMethodHasOneSpelling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var known, unknown atomic.Int64
		f.serveAs(guarded("/hidden.Service/Method"), &backend{}, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			if decoded, err := url.PathUnescape(method); err == nil && strings.EqualFold(path.Clean(decoded), "/hidden.Service/Method") {
				known.Add(1)
			} else {
				unknown.Add(1)
			}
			return nil
		}))
		for _, form := range []string{
			"/hidden.Service/Method", "//hidden.Service/Method", "/hidden.Service//Method", "/hidden.Service/Method/", "/./hidden.Service/Method",
			"/x/../hidden.Service/Method", "/hidden.Service/x/../Method", "/%68idden.Service/Method", "/hidden.Service%2fMethod", "/hidden.Service/%4dethod",
			"/hidden.Service/Method/.", "/hidden.Service/./Method", "/x/%2e%2e/hidden.Service/Method",
		} {
			if got := f.rawCall(form); got == "0" {
				t.Errorf("%q is served", form)
			}
		}
		if n := known.Load(); n != 0 {
			t.Errorf("%d denied calls got through", n)
		}
		if got := f.rawCall("/other.Service/Method"); got != "0" || unknown.Load() != 1 {
			t.Errorf("an unknown method: status %s, %d calls", got, unknown.Load())
		}
	})
}

// TestV01_V05_ACallHasOneReading: for whoever takes every method, such as a proxy
// behind a policy, too.
func TestV01_V05_ACallHasOneReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serveAs(guarded("/S/M"), &backend{}, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			return status.Error(codes.DataLoss, method)
		}))
		const served = "15"
		for path, want := range map[string]string{
			"/S/M": "7", "/S/%4d": "12", "/S/N": served, "/S/N/": "12",
			"//S/M": "12", "/S//M": "12", "/./S/M": "12", "/x/../S/M": "12", "/S/M;x": "12", "/S/M#": "12", "/S/M?x": "12", "/S/M%00": "12",
			"/S%2fM": "12", "/S/M%": "12",
		} {
			if got := f.rawCall(path); got != want && (want == served || got != "reset" && got != "closed") {
				t.Errorf("%q: status %s, want %s", path, got, want)
			}
		}
		client := f.plainClient(endpoint)
		for authority, want := range map[string]codes.Code{
			"a.test:80": codes.OK, "[::1]:80": codes.OK, "[a.test]:80": codes.InvalidArgument, "u@a.test": codes.InvalidArgument,
		} {
			if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}, grpc.CallAuthority(authority)); status.Code(err) != want {
				t.Errorf("%q: %v, want %v", authority, err, want)
			}
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
