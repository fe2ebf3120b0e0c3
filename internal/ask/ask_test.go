package ask_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

func TestARequestIsAskedAbout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		ask.Request

		want string // what is asked about, or the error
	}{
		{"a URL", ask.Request{Method: "GET", URL: "http://payment.shop:80/pay"}, "http GET payment.shop:80/pay at payment.shop:80"},
		{"without a scheme", ask.Request{Method: "PUT", URL: "payment.shop/pay"}, "http PUT payment.shop/pay at payment.shop:80"},
		{"with an authority", ask.Request{Method: "GET", URL: "http://payment.shop/", Header: map[string][]string{"Host": {"other"}}}, "http GET other/ at payment.shop:80"},
		{"a gRPC method and a target", ask.Request{GRPC: true, Method: "/a.B/C", URL: "mesh:///payment.shop:90"}, "grpc POST payment.shop:90/a.B/C at payment.shop:90"},
		{"a gRPC method and a host", ask.Request{GRPC: true, Method: "/a.B/C", URL: "payment.shop:90"}, "grpc POST payment.shop:90/a.B/C at payment.shop:90"},
		{"a gRPC call as a URL", ask.Request{GRPC: true, Method: "POST", URL: "http://payment.shop/a.B/C"}, "grpc POST payment.shop:80/a.B/C at payment.shop:80"},
		{"a gRPC call as a URL of the mesh", ask.Request{GRPC: true, Method: "POST", URL: "xds:///payment.shop:90/a.B/C"}, "grpc POST payment.shop:90/a.B/C at payment.shop:90"},
		{"no URL", ask.Request{Method: "GET"}, "the URL is missing: use http://HOST:PORT/PATH"},
		{"no method", ask.Request{URL: "a"}, "the method is missing: use GET, or another one"},
		{"no host", ask.Request{Method: "GET", URL: "http:///pay"}, `URL "http:///pay" has no host: use http://HOST:PORT/PATH`},
		{"a bad port", ask.Request{Method: "GET", URL: "http://a:b/"}, `URL "http://a:b/": invalid port ":b" after host: use http://HOST:PORT/PATH`},
		{"another scheme", ask.Request{Method: "GET", URL: "ftp://a/"}, `mesh: URL "ftp://a/": unsupported scheme "ftp": use http`},
		{"a bad method", ask.Request{Method: "G ET", URL: "http://a/"}, `request "G ET http://a/": net/http: invalid method "G ET"`},
		{"no gRPC method", ask.Request{GRPC: true, Method: "POST", URL: "a:1"}, `mesh: method "POST": write it like "/package.Service/Method"`},
		{"a gRPC target without a port", ask.Request{GRPC: true, Method: "/a.B/C", URL: "mesh:///a"}, `mesh: target "mesh:///a": it needs a port: mesh:///HOST:PORT`},
	}
	synctest.Test(t, func(t *testing.T) {
		m := meshtest.New(t).Workload("customer.shop")
		for _, tt := range tests {
			e, err := tt.Request.Explain(t.Context(), m)
			var got string
			if err != nil {
				got = err.Error()
			} else {
				got = e.Protocol + " " + e.Method + " " + e.Host + e.Path + " at " + e.Target
			}
			if got != tt.want {
				t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
			}
		}
	})
}

func TestHeadersAreReadAsCurlHasThem(t *testing.T) {
	t.Parallel()
	var r ask.Request
	for _, h := range []string{"x-a: 1", "x-a:2", "x-b:"} {
		if err := r.Add(h); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(map[string][]string{"x-a": {"1", "2"}, "x-b": {""}}, r.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if err := r.Add("x-a"); err == nil || err.Error() != `header without a name: write it like "NAME: VALUE"` {
		t.Errorf("got %v", err)
	}
}

func TestRecordedRequestsAreRead(t *testing.T) {
	t.Parallel()
	got, skipped, err := ask.Read(strings.NewReader(`{"method":"GET","url":"http://a/b?c"}

{"method":"POST","host":"a:80","path":"/b","query":"x=1","headers":{"x-user":"ann","x-list":["1","2"]},"status":200}
{"authority":"a","path":"/b","protocol":"HTTP/1.1","grpc_status":null}
{"method":"GET","url":"http://a/b?c","duration":7}
{"method":"POST",":authority":"a:90","path":"/s.T/U","grpc_status":0}
{"host":"a:90","path":"/s.T/U","headers":{"Content-Type":"application/grpc+proto"}}
{"method":"/s.T/U","url":"mesh:///a:90","protocol":"grpc"}
{"method":"/s.T/V","host":"a:90"}
{"method":null,"authority":null,"path":null,"protocol":null,"response_flags":"DPE"}
{"method":"-","authority":"-","path":"-","protocol":"-"}
{"method":"CONNECT","authority":"a:90","path":null}
{"method":"GET","authority":null,"path":"/"}
{"method":null,"authority":"a","path":"/"}
{"method":"GET","host":"-","authority":"b","path":"/-","scheme":null,"query":null}
`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{10, 11, 12, 13, 14}, skipped); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
	want := []ask.Recorded{
		{Request: ask.Request{Method: "GET", URL: "http://a/b?c"}, Line: 1, Count: 2},
		{Request: ask.Request{Method: "POST", URL: "http://a:80/b?x=1", Header: map[string][]string{"x-user": {"ann"}, "x-list": {"1", "2"}}}, Line: 3, Count: 1},
		{Request: ask.Request{Method: "GET", URL: "http://a/b"}, Line: 4, Count: 1},
		{Request: ask.Request{Method: "POST", URL: "http://a:90/s.T/U", GRPC: true}, Line: 6, Count: 1},
		{Request: ask.Request{Method: "POST", URL: "http://a:90/s.T/U", GRPC: true, Header: map[string][]string{"Content-Type": {"application/grpc+proto"}}}, Line: 7, Count: 1},
		{Request: ask.Request{Method: "/s.T/U", URL: "mesh:///a:90", GRPC: true}, Line: 8, Count: 1},
		{Request: ask.Request{Method: "/s.T/V", URL: "http://a:90", GRPC: true}, Line: 9, Count: 1},
		{Request: ask.Request{Method: "GET", URL: "http://b/-"}, Line: 15, Count: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestRecordedRequestsThatAreNone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"\nGET /\n":                                    "line 2: no JSON object with a request: invalid character 'G' looking for beginning of value",
		`{"method":"GET"}`:                             `line 1: there is neither "url" nor "host": write {"method": "GET", "host": "payment.shop:8080", "path": "/"}`,
		`{"host":"a","path":"b"}`:                      `line 1: path "b" does not begin with a slash`,
		`{"host":"a","method":1}`:                      "line 1: no JSON object with a request: the method and each part of the URL is a text",
		`{"host":"a","headers":{"x":1}}`:               "line 1: no JSON object with a request: the value of a header is a text, or a list of texts",
		`{"url":"` + strings.Repeat("a", 1<<20) + `"}`: "line 1: longer than 1048576 bytes: write one JSON object on each line",
	} {
		if _, _, err := ask.Read(strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
}

func TestARequestIsShownWithoutSecrets(t *testing.T) {
	t.Parallel()
	r := ask.Request{Method: "GET", URL: "http://ann:pw@a:80/b@c?x=1&api_key=s3&flag&token&%zz=s3", Header: map[string][]string{
		"Authorization": {"Bearer s3"}, "cookie": {"s3", "s4"}, "x-user": {"ann"},
	}}
	want := ask.Request{Method: "GET", URL: "http://a:80/b@c?x=1&api_key=(hidden)&flag&token=(hidden)&%zz=(hidden)", Header: map[string][]string{
		"Authorization": {"(hidden)"}, "cookie": {"(hidden)"}, "x-user": {"ann"},
	}}
	if diff := cmp.Diff(want, r.Redacted()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.Header["Authorization"][0]; got != "Bearer s3" {
		t.Errorf("the request has become %q", got)
	}
	for _, url := range []string{"payment.shop/pay", "payment.shop:80/pay?x=a=b", "mesh:///payment.shop:90", ""} {
		if got := (&ask.Request{URL: url}).Redacted(); got.URL != url {
			t.Errorf("%q is shown as %q", url, got.URL)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"method":"GET","host":"a","path":"/b","headers":{"x":["1"]}}`)
	f.Add(`{"method":null,"path":"-"}`)
	f.Add(`{"url":"http://a"}` + "\n" + `{"grpc":true,"grpc_status":"0"}`)
	f.Fuzz(func(t *testing.T, text string) {
		requests, skipped, err := ask.Read(strings.NewReader(text))
		if err != nil && (requests != nil || skipped != nil) {
			t.Errorf("requests beside the error %v", err)
		}
		last := 0
		for _, r := range requests {
			if r.Line <= last || r.Count < 1 || r.URL == "" || r.Method == "" {
				t.Errorf("a request that cannot be: %+v", r)
			}
			last = r.Line
		}
	})
}
