package extauthz

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/service"
)

const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// checkGRPC asks a service with Envoy's API. One unary call is a request with
// one message and a response with one, which the clusters of the mesh carry as
// any other.
func (f *Filter) checkGRPC(ctx context.Context, x *filter.Exchange, b body) (*verdict, error) {
	request, err := f.checkRequest(x, b)
	if err != nil {
		return nil, err
	}
	message, err := proto.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnaskable, err)
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	framed = append(framed, message...)
	c := f.config.GRPC
	u := url.URL{Scheme: "http", Host: authorityOf(c), Path: checkMethod}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(framed))
	if err != nil {
		return nil, err
	}
	req.ProtoMajor, req.ProtoMinor, req.Proto = 2, 0, "HTTP/2.0"
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	if deadline, ok := ctx.Deadline(); ok {
		req.Header.Set("Grpc-Timeout", strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10)+"m")
	}
	for _, h := range c.Metadata {
		req.Header.Add(h.Name, h.Value)
	}
	resp, err := f.caller.Do(ctx, c.Cluster, req, maxAnswer, false)
	if err != nil {
		return nil, err
	}
	answer, err := unframe(resp.Status, resp.Header, resp.Trailer, resp.Body)
	if err != nil {
		return nil, err
	}
	return verdictOf(answer)
}

// authorityOf is what the service is called. The name of a cluster may hold what
// no authority can.
func authorityOf(c *discovery.AuthzGRPC) string {
	if c.Authority != "" {
		return c.Authority
	}
	return strings.ReplaceAll(c.Cluster, "|", "_.")
}

// unframe reads the response of a unary gRPC call.
func unframe(status int, header, trailer http.Header, data []byte) (*authv3.CheckResponse, error) {
	if status != http.StatusOK {
		return nil, service.Because(service.Status, fmt.Errorf("the service answered HTTP status %d", status))
	}
	code := trailer.Get("Grpc-Status")
	if code == "" {
		code = header.Get("Grpc-Status") // an answer without a message
	}
	switch {
	case code == "":
		return nil, errors.New("the service's answer is none of gRPC: its cluster must speak HTTP/2")
	case code != "0":
		return nil, service.Because(service.Status, fmt.Errorf("the service failed with the gRPC status %q", code))
	}
	const prefix = 5
	if len(data) < prefix || data[0] != 0 || int64(binary.BigEndian.Uint32(data[1:prefix])) != int64(len(data)-prefix) {
		return nil, errors.New("the service's answer is not one message")
	}
	answer := &authv3.CheckResponse{}
	if err := proto.Unmarshal(data[prefix:], answer); err != nil {
		return nil, fmt.Errorf("the service's answer: %w", err)
	}
	return answer, nil
}

// checkRequest says what is known of a request.
func (f *Filter) checkRequest(x *filter.Exchange, b body) (*authv3.CheckRequest, error) {
	attributes := &authv3.AttributeContext{
		Source:            &authv3.AttributeContext_Peer{Address: address(x.Facts.Remote), Principal: x.Facts.PeerID},
		Destination:       &authv3.AttributeContext_Peer{},
		Request:           &authv3.AttributeContext_Request{Time: timestamppb.New(x.Facts.Start), Http: f.httpRequest(x, b)},
		ContextExtensions: f.extensions,
		MetadataContext:   &corev3.Metadata{},
	}
	if x.Facts.Local != nil {
		attributes.Destination.Address = address(x.Facts.Local.String())
	}
	if cert := x.Certificate(); cert != nil && f.config.PeerCertificate {
		attributes.Source.Certificate = url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})))
	}
	if f.config.TLSSession && x.TLS != nil {
		attributes.TlsSession = &authv3.AttributeContext_TLSSession{Sni: x.TLS.ServerName}
	}
	for _, namespace := range f.config.MetadataNamespaces {
		values, ok := x.Metadata[namespace]
		if !ok {
			continue
		}
		s, err := structpb.NewStruct(values)
		if err != nil {
			return nil, fmt.Errorf("metadata %q: %w", namespace, err)
		}
		if attributes.MetadataContext.FilterMetadata == nil {
			attributes.MetadataContext.FilterMetadata = make(map[string]*structpb.Struct)
		}
		attributes.MetadataContext.FilterMetadata[namespace] = s
	}
	return &authv3.CheckRequest{Attributes: attributes}, nil
}

func (f *Filter) httpRequest(x *filter.Exchange, b body) *authv3.AttributeContext_HttpRequest {
	r := &authv3.AttributeContext_HttpRequest{
		Id: clean(first(x, "x-request-id")), Method: x.Method, Path: clean(x.PathAndQuery()), Host: clean(x.Host), Scheme: x.Scheme,
		Protocol: x.Facts.Protocol, Size: -1,
	}
	if n, err := strconv.ParseInt(first(x, "content-length"), 10, 64); err == nil {
		r.Size = n
	}
	add := func(name string, values ...string) {
		if f.config.AllowedHeaders != nil && !matches(f.config.AllowedHeaders, name) || matches(f.config.DisallowedHeaders, name) {
			return
		}
		if f.config.RawHeaders {
			if r.HeaderMap == nil {
				r.HeaderMap = &corev3.HeaderMap{}
			}
			for _, value := range values {
				r.HeaderMap.Headers = append(r.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
			}
			return
		}
		if r.Headers == nil {
			r.Headers = make(map[string]string)
		}
		r.Headers[name] = clean(strings.Join(values, ","))
	}
	add(":authority", x.Host)
	add(":method", x.Method)
	add(":path", x.PathAndQuery())
	add(":scheme", x.Scheme)
	for _, name := range headerNames(x) {
		if !strings.HasPrefix(name, ":") && name != partialHeader {
			add(name, x.Header.Values(name)...)
		}
	}
	if b.read {
		add(partialHeader, strconv.FormatBool(b.partial))
		if f.body.AsBytes {
			r.RawBody = b.data
		} else {
			r.Body = clean(string(b.data))
		}
	}
	return r
}

func first(x *filter.Exchange, name string) string {
	if values := x.Header.Values(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// clean makes a text UTF-8, which protobuf wants: what is none becomes "!", as
// in Envoy, so that the service sees that something was there (V8).
func clean(text string) string { return strings.ToValidUTF8(text, "!") }

// address is an address as Envoy's API has it.
func address(text string) *corev3.Address {
	host, port := text, uint64(0)
	if h, p, err := net.SplitHostPort(text); err == nil {
		host = h
		port, _ = strconv.ParseUint(p, 10, 16) // a name has none
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// verdictOf reads the answer of a service.
func verdictOf(m *authv3.CheckResponse) (*verdict, error) {
	v := &verdict{allowed: m.GetStatus().GetCode() == 0, metadata: m.GetDynamicMetadata().AsMap()}
	if m.GetStatus() == nil {
		// Envoy takes an answer that says nothing for a yes, as protobuf's zero
		// is OK. An empty message is what a broken service sends.
		v.allowed = m.GetOkResponse() != nil
	}
	if failure := m.GetErrorResponse(); failure != nil {
		v.allowed = false
		v.readDenied(failure, 0)
		return v, service.Because(service.Status, errors.New("the service reports an error of its own"))
	}
	if !v.allowed {
		v.readDenied(m.GetDeniedResponse(), http.StatusForbidden)
		return v, nil
	}
	if m.GetDeniedResponse() != nil {
		return nil, errors.New("the service's answer is yes and no")
	}
	ok := m.GetOkResponse()
	//nolint:staticcheck // the deprecated field is still in use, and comes first
	if old := ok.GetDynamicMetadata(); old != nil {
		v.metadata = old.AsMap()
	}
	v.request = changesOf(ok.GetHeaders())
	v.response = changesOf(ok.GetResponseHeadersToAdd())
	v.remove = ok.GetHeadersToRemove()
	v.removeQuery = ok.GetQueryParametersToRemove()
	for _, p := range ok.GetQueryParametersToSet() {
		v.setQuery = append(v.setQuery, param{name: p.GetKey(), value: p.GetValue()})
	}
	return v, nil
}

func (v *verdict) readDenied(m *authv3.DeniedHttpResponse, status int) {
	if code := int(m.GetStatus().GetCode()); code != 0 {
		status = code
	}
	v.deny(status, []byte(m.GetBody()))
	for _, h := range m.GetHeaders() {
		v.addHeader(h.GetHeader().GetKey(), valueOf(h.GetHeader()))
	}
}

// changesOf reads headers to set. append is false by default in these messages.
//
//nolint:staticcheck // the deprecated field is still in use
func changesOf(options []*corev3.HeaderValueOption) []change {
	list := make([]change, 0, len(options))
	for _, o := range options {
		c := change{
			name: strings.ToLower(o.GetHeader().GetKey()), value: valueOf(o.GetHeader()),
			action: discovery.OverwriteIfExistsOrAdd,
		}
		switch {
		case o.GetAppend() != nil:
			if o.GetAppend().GetValue() {
				c.action = discovery.AppendIfExistsOrAdd
			}
		case o.GetAppendAction() == corev3.HeaderValueOption_ADD_IF_ABSENT:
			c.action = discovery.AddIfAbsent
		case o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			c.action = discovery.OverwriteIfExists
		}
		list = append(list, c)
	}
	return list
}

func valueOf(h *corev3.HeaderValue) string {
	if raw := h.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return h.GetValue()
}
