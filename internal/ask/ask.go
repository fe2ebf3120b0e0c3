// Package ask is the questions about a mesh that can be written down: the request
// of which somebody asks where it would go, on a command line, over HTTP, or in a
// file of recorded ones.
package ask

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/explain"
	"github.com/inboardmesh/inboard/mesh"
)

// Request is a request to ask about.
type Request struct {
	// Method is the HTTP method, or for gRPC "/package.Service/Method".
	Method string `json:"method"`
	// URL is "http://HOST:PORT/PATH?QUERY", or for gRPC "mesh:///HOST:PORT". Without
	// a scheme it is one of these. The path of a URL can be the gRPC method, with
	// POST as Method.
	URL string `json:"url"`
	// Header is the headers, or the metadata. "Host" is the authority.
	Header map[string][]string `json:"headers,omitempty"`
	GRPC   bool                `json:"grpc,omitempty"`
}

// String is the request in a line, without headers.
func (r *Request) String() string {
	protocol := ""
	if r.GRPC {
		protocol = "gRPC "
	}
	return protocol + r.Method + " " + r.URL
}

// Add adds a header as curl has it: "NAME: VALUE".
func (r *Request) Add(header string) error {
	name, value, ok := strings.Cut(header, ":")
	if name = strings.TrimSpace(name); !ok || name == "" {
		return errors.New("header without a name: write it like \"NAME: VALUE\"") // it may be a secret
	}
	if r.Header == nil {
		r.Header = make(map[string][]string)
	}
	r.Header[name] = append(r.Header[name], strings.TrimSpace(value))
	return nil
}

// Redacted is the request without what may be a secret: the values of headers and of
// parameters whose names say so, as in explanations, and who asks in the URL.
func (r *Request) Redacted() Request {
	out := *r
	out.Header = maps.Clone(r.Header)
	for name := range out.Header {
		if explain.Secret(name) {
			out.Header[name] = []string{explain.Hidden}
		}
	}
	out.URL = redactURL(r.URL)
	return out
}

// redactURL leaves the rest of a URL as it is written.
func redactURL(text string) string {
	place, query, hasQuery := strings.Cut(text, "?")
	if scheme, rest, ok := strings.Cut(place, "://"); ok {
		host, path, slash := strings.Cut(rest, "/")
		if slash {
			path = "/" + path
		}
		place = scheme + "://" + host[strings.LastIndexByte(host, '@')+1:] + path
	}
	if !hasQuery {
		return place
	}
	parameters := strings.Split(query, "&")
	for i, parameter := range parameters {
		escaped, _, _ := strings.Cut(parameter, "=")
		if name, err := url.QueryUnescape(escaped); err != nil || explain.Secret(name) {
			parameters[i] = escaped + "=" + explain.Hidden
		}
	}
	return place + "?" + strings.Join(parameters, "&")
}

// Explain asks a mesh.
func (r *Request) Explain(ctx context.Context, m *mesh.Mesh) (*mesh.Explanation, error) {
	if r.GRPC {
		return r.explainRPC(ctx, m)
	}
	if r.Method == "" {
		return nil, errors.New("the method is missing: use GET, or another one")
	}
	u, err := parseURL(r.URL, "http")
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("request %q: %w", r.Method+" "+r.URL, err)
	}
	for name, values := range r.Header {
		for _, value := range values {
			if isHost(name) {
				req.Host = value
			} else {
				req.Header.Add(name, value)
			}
		}
	}
	return m.Explain(req)
}

func (r *Request) explainRPC(ctx context.Context, m *mesh.Mesh) (*mesh.Explanation, error) {
	u, err := parseURL(r.URL, "mesh")
	if err != nil {
		return nil, err
	}
	host, method := u.Host, u.EscapedPath()
	if u.Scheme == "mesh" || u.Scheme == "xds" {
		if host == "" { // what follows the third slash is the host
			host, method, _ = strings.Cut(strings.TrimPrefix(method, "/"), "/")
			method = "/" + method
		}
	} else if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	if method == "" || method == "/" {
		method = r.Method
	}
	md := metadata.MD{}
	var options []grpc.CallOption
	for name, values := range r.Header {
		if isHost(name) {
			options = append(options, grpc.CallAuthority(values[0]))
			continue
		}
		md.Append(name, values...)
	}
	return m.ExplainRPC(metadata.NewOutgoingContext(ctx, md), "mesh:///"+host, method, options...)
}

func isHost(name string) bool { return strings.EqualFold(name, "host") || name == ":authority" }

// parseURL reads a URL, whose scheme may be missing.
func parseURL(text, scheme string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("the URL is missing: use http://HOST:PORT/PATH")
	}
	full := text
	if !strings.Contains(text, "://") {
		full = scheme + "://" + text
	}
	u, err := url.Parse(full)
	if err != nil {
		cause := err
		if parse, ok := errors.AsType[*url.Error](err); ok {
			cause = parse.Err
		}
		return nil, fmt.Errorf("URL %q: %w: use http://HOST:PORT/PATH", text[strings.LastIndexByte(text, '@')+1:], cause) // without a password
	}
	if u.Host == "" && !strings.HasPrefix(full, "mesh:///") && !strings.HasPrefix(full, "xds:///") {
		return nil, fmt.Errorf("URL %q has no host: use http://HOST:PORT/PATH", text)
	}
	return u, nil
}
