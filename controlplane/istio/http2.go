package istio

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// checkPings checks http2KeepAlive, of which Istio requires both.
func checkPings(k *networking.ConnectionPoolSettings_HTTPSettings_ConnectionKeepalive, a at) {
	if k == nil {
		return
	}
	if k.Interval == nil {
		a.field("interval").errorf("is required: the time after which a silent peer is asked")
	}
	if k.Timeout == nil {
		a.field("timeout").errorf("is required: the time that a peer has for an answer")
	}
	checkDuration(k.Interval, a.field("interval"))
	checkDuration(k.Timeout, a.field("timeout"))
}

// http2Options translates what a pool says of HTTP/2. As in Istio it is for ports
// over which HTTP/2 is spoken, and says nothing of others.
func http2Options(pool *networking.ConnectionPoolSettings) *corev3.Http2ProtocolOptions {
	o := &corev3.Http2ProtocolOptions{}
	if n := pool.GetHttp().GetMaxConcurrentStreams(); n > 0 {
		o.MaxConcurrentStreams = wrapperspb.UInt32(uint32(n))
	}
	if k := pool.GetHttp().GetHttp2KeepAlive(); k != nil {
		o.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: k.Interval, Timeout: k.Timeout}
	}
	return o
}
