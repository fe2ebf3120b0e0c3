package discovery

import "time"

// Limit is how long a call may take on this route, with all its attempts; 0
// means no limit. listenerMax is the listener's max_stream_duration.
//
// Route timeouts apply to HTTP and gRPC alike, as in Envoy. Where the route
// sets max_stream_duration, a gRPC call takes its limit from there instead
// (gRFC A31), and an HTTP call the shorter of both.
func (f *Forward) Limit(grpc bool, listenerMax time.Duration) time.Duration {
	stream := listenerMax
	if f.MaxStreamDuration != nil {
		stream = *f.MaxStreamDuration
	}
	if !grpc {
		return shorter(f.Timeout, stream)
	}
	switch {
	case f.GRPCTimeoutHeaderMax != nil:
		return *f.GRPCTimeoutHeaderMax
	case f.MaxStreamDuration != nil:
		return stream
	}
	return shorter(f.Timeout, stream)
}

// shorter is the shorter of two limits, of which 0 is none.
func shorter(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}
