package extauthz

import (
	"encoding/binary"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http/httpguts"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
)

type fuzzHeaders map[string][]string

func (h fuzzHeaders) Values(name string) []string { return h[name] }
func (h fuzzHeaders) Set(name, value string)      { h[name] = []string{value} }
func (h fuzzHeaders) Add(name, value string)      { h[name] = append(h[name], value) }
func (h fuzzHeaders) Del(name string)             { delete(h, name) }

// FuzzCheckResponse feeds the filter with what a service answers. Whatever it is,
// a request is allowed only by a clear yes, goes where it went, and has headers
// that can be written.
func FuzzCheckResponse(f *testing.F) {
	header := func(name, value string) []*corev3.HeaderValueOption {
		return []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: name, Value: value}}}
	}
	// Yes.
	for _, ok := range []*authv3.OkHttpResponse{
		{}, {Headers: header("x-user", "a"), HeadersToRemove: []string{"x-secret", ":path", "host"}},
		{Headers: header(":path", "/admin")}, {Headers: header("x", "a\r\nb")}, {ResponseHeadersToAdd: header("Content-Length", "1")},
		{QueryParametersToSet: []*corev3.QueryParameter{{Key: "a&b", Value: "="}}, QueryParametersToRemove: []string{"a", ""}},
	} {
		addAnswer(f, &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}})
	}
	// No, and neither.
	addAnswer(f, &authv3.CheckResponse{})
	addAnswer(f, &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}})
	addAnswer(f, &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
		DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 200}, Headers: header("transfer-encoding", "x"), Body: "\xff"},
	}})
	addAnswer(f, &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_ErrorResponse{ErrorResponse: &authv3.DeniedHttpResponse{}}})
	// What is no answer.
	f.Add([]byte{}, "0")
	f.Add([]byte{1, 0, 0, 0, 0}, "0")
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff}, "0")
	f.Add([]byte{0, 0, 0, 0, 0}, "")
	f.Fuzz(func(t *testing.T, data []byte, code string) {
		answer, err := unframe(http.StatusOK, http.Header{}, http.Header{"Grpc-Status": {code}}, data)
		if err != nil {
			return // such a request is not allowed, see the filter's tests
		}
		if code != "0" {
			t.Fatalf("the status %q is no success", code)
		}
		v, err := verdictOf(answer)
		if err != nil {
			return
		}
		filtered := New(&discovery.ExtAuthz{GRPC: &discovery.AuthzGRPC{}, StatusOnError: 403}, nil, &observe.Hooks{})
		if !v.allowed {
			a := filtered.denial(v)
			if a.Status < 300 || a.Status > 599 {
				t.Fatalf("denied with status %d", a.Status)
			}
			for _, h := range a.Headers {
				writable(t, h.Name, h.Value)
			}
			return
		}
		if answer.GetStatus().GetCode() != 0 || answer.GetStatus() == nil && answer.GetOkResponse() == nil || answer.GetDeniedResponse() != nil {
			t.Fatalf("allowed by %v", answer)
		}
		h := fuzzHeaders{"x-secret": {"s"}, "x-user": {"mallory"}, "host": {"shop"}, "content-length": {"3"}}
		x := &filter.Exchange{Request: route.Request{Method: "POST", Scheme: "http", Host: "shop", Path: "/pay", Query: "a=b", Header: h}, Headers: h}
		before := maps.Clone(h)
		if err := v.apply(filtered, x); err != nil {
			if !maps.EqualFunc(h, before, slices.Equal) {
				t.Fatalf("changed to %v by an answer that is refused: %v", h, err)
			}
			return
		}
		if x.Method != http.MethodPost || x.Host != "shop" || x.Path != "/pay" || !slices.Equal(h["host"], before["host"]) || !slices.Equal(h["content-length"], before["content-length"]) {
			t.Fatalf("sent elsewhere: %+v", x.Request)
		}
		if strings.ContainsAny(x.Query, " \r\n#") {
			t.Fatalf("query %q", x.Query)
		}
		response := fuzzHeaders{}
		x.Response(http.StatusOK, response)
		for _, headers := range []fuzzHeaders{h, response} {
			for name, values := range headers {
				for _, value := range values {
					if !slices.Contains(before[name], value) {
						writable(t, name, value)
					}
				}
			}
		}
	})
}

func addAnswer(f *testing.F, m *authv3.CheckResponse) {
	f.Helper()
	message, err := proto.Marshal(m)
	if err != nil {
		return // a text that is no UTF-8: a service cannot send it either
	}
	f.Add(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...), "0")
}

func writable(t *testing.T, name, value string) {
	t.Helper()
	if unchangeable(name) || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
		t.Fatalf("header %q: %q", name, value)
	}
}
