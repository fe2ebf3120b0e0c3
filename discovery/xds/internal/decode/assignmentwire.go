package decode

import (
	"math"
	"net/netip"
	"strconv"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/balancer"
)

// The numbers of the fields that are read from the wire.
const (
	assignmentEndpoints protowire.Number = 2

	localityLbEndpoints protowire.Number = 2

	lbEndpointEndpoint protowire.Number = 1
	lbEndpointHealth   protowire.Number = 2
	lbEndpointMetadata protowire.Number = 3
	lbEndpointWeight   protowire.Number = 4

	endpointAddress  protowire.Number = 1
	endpointHostname protowire.Number = 3

	addressSocket protowire.Number = 1

	socketProtocol protowire.Number = 1
	socketHost     protowire.Number = 2
	socketPort     protowire.Number = 3

	wrapperValue protowire.Number = 1
)

// plainEndpoints are the endpoints of each locality that could be read from the
// wire, by its index; nil for a locality whose endpoints are in its message.
type plainEndpoints [][]balancer.Endpoint

func (p plainEndpoints) of(locality int) []balancer.Endpoint {
	if locality < len(p) {
		return p[locality]
	}
	return nil
}

// takePlain reads the endpoints of a ClusterLoadAssignment from its bytes, without
// making messages of them: there may be a hundred thousand, which all come again
// when one of them changes. It returns what is left, for protobuf.
//
// It knows the plain endpoint, which is almost every one: a socket address, a name,
// a health status, a weight, metadata, each once at most and none of them wrong. A
// locality with any other endpoint is left as it is, for the way that says what is
// wrong, and where. Both ways give the same (FuzzAssignment).
func takePlain(value []byte) (rest []byte, plain plainEndpoints) {
	w := &wireEndpoints{metadata: make(map[string]map[string]map[string]string)}
	left := value
	for len(left) > 0 {
		number, kind, body, n := consume(left)
		if n < 0 {
			return value, nil // protobuf says what is wrong
		}
		field := left[:n]
		left = left[n:]
		if number != assignmentEndpoints {
			rest = append(rest, field...)
			continue
		}
		if kind != protowire.BytesType {
			return value, nil
		}
		others, endpoints := w.locality(body)
		plain = append(plain, endpoints)
		if endpoints == nil {
			rest = append(rest, field...)
			continue
		}
		rest = protowire.AppendTag(rest, assignmentEndpoints, protowire.BytesType)
		rest = protowire.AppendBytes(rest, others)
	}
	return rest, plain
}

// consume splits the first field off. body is what a field of BytesType holds; n is
// negative if the bytes are none.
func consume(b []byte) (number protowire.Number, kind protowire.Type, body []byte, n int) {
	number, kind, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return 0, 0, nil, -1
	}
	if kind == protowire.BytesType {
		body, n = protowire.ConsumeBytes(b[tag:])
	} else {
		n = protowire.ConsumeFieldValue(number, kind, b[tag:])
	}
	if n < 0 {
		return 0, 0, nil, -1
	}
	return number, kind, body, tag + n
}

// varint is the value of a field of VarintType, of which consume has said that it is
// whole.
func varint(field []byte) uint64 {
	_, _, tag := protowire.ConsumeTag(field)
	v, _ := protowire.ConsumeVarint(field[tag:])
	return v
}

// wireEndpoints reads plain endpoints.
type wireEndpoints struct {
	// metadata is what was read before, by its bytes: the endpoints of a workload
	// share theirs.
	metadata map[string]map[string]map[string]string
}

// maxMetadata bounds what is remembered. Metadata that is different everywhere is
// not worth it.
const maxMetadata = 1000

// locality reads the endpoints of a LocalityLbEndpoints. It returns nil if there
// are none, or one is not plain; and what else there is.
func (w *wireEndpoints) locality(body []byte) (others []byte, endpoints []balancer.Endpoint) {
	count := 0
	for left := body; len(left) > 0; {
		number, kind, _, n := consume(left)
		if n < 0 {
			return nil, nil
		}
		if number == localityLbEndpoints && kind == protowire.BytesType {
			count++
		} else {
			others = append(others, left[:n]...)
		}
		left = left[n:]
	}
	if count == 0 {
		return nil, nil
	}
	endpoints = make([]balancer.Endpoint, 0, count)
	for left := body; len(left) > 0; {
		number, kind, lbEndpoint, n := consume(left)
		left = left[n:]
		if number != localityLbEndpoints || kind != protowire.BytesType {
			continue
		}
		endpoints = endpoints[:len(endpoints)+1]
		if !w.lbEndpoint(lbEndpoint, &endpoints[len(endpoints)-1]) {
			return nil, nil
		}
	}
	return others, endpoints
}

// lbEndpoint reads an LbEndpoint. It reports false if that is not plain.
func (w *wireEndpoints) lbEndpoint(b []byte, e *balancer.Endpoint) bool {
	var seen fieldSet
	for len(b) > 0 {
		number, kind, body, n := consume(b)
		if n < 0 || !seen.add(number) {
			return false
		}
		ok := false
		switch {
		case number == lbEndpointEndpoint && kind == protowire.BytesType:
			ok = w.endpoint(body, e)
		case number == lbEndpointHealth && kind == protowire.VarintType:
			v := varint(b)
			if ok = v <= math.MaxInt32; ok {
				e.Health = healthStatus(corev3.HealthStatus(v))
			}
		case number == lbEndpointMetadata && kind == protowire.BytesType:
			e.Metadata, ok = w.metadataOf(body)
		case number == lbEndpointWeight && kind == protowire.BytesType:
			e.Weight, ok = weight(body)
		}
		if !ok {
			return false
		}
		b = b[n:]
	}
	return e.Address != ""
}

// fieldSet is which fields of a message there were.
type fieldSet uint8

// add reports false for a field that was there before, or cannot be noted.
func (s *fieldSet) add(number protowire.Number) bool {
	const most = 8
	if number >= most || *s&(1<<number) != 0 {
		return false
	}
	*s |= 1 << number
	return true
}

func (w *wireEndpoints) endpoint(b []byte, e *balancer.Endpoint) bool {
	var seen fieldSet
	for len(b) > 0 {
		number, kind, body, n := consume(b)
		if n < 0 || kind != protowire.BytesType || !seen.add(number) {
			return false
		}
		switch number {
		case endpointAddress:
			inner, _, socket, m := consume(body)
			if m != len(body) || inner != addressSocket || socket == nil {
				return false
			}
			var ok bool
			if e.Address, ok = plainAddress(socket); !ok {
				return false
			}
		case endpointHostname:
			if !utf8.Valid(body) {
				return false
			}
			e.Hostname = string(body)
		default:
			return false
		}
		b = b[n:]
	}
	return true
}

// plainAddress reads a SocketAddress.
func plainAddress(b []byte) (string, bool) {
	var seen fieldSet
	var host []byte
	var port uint64
	for len(b) > 0 {
		number, kind, body, n := consume(b)
		if n < 0 || !seen.add(number) {
			return "", false
		}
		switch {
		case number == socketProtocol && kind == protowire.VarintType && varint(b) == uint64(corev3.SocketAddress_TCP):
		case number == socketHost && kind == protowire.BytesType:
			host = body
		case number == socketPort && kind == protowire.VarintType:
			port = varint(b)
		default:
			return "", false
		}
		b = b[n:]
	}
	if port == 0 || port > math.MaxUint16 {
		return "", false
	}
	if isIPv4(host) {
		var room [len("255.255.255.255:65535")]byte
		text := append(append(room[:0], host...), ':')
		return string(strconv.AppendUint(text, port, 10)), true
	}
	ip, err := netip.ParseAddr(string(host))
	if err != nil {
		return "", false
	}
	return netip.AddrPortFrom(ip, uint16(port)).String(), true
}

// isIPv4 reports whether b is an IPv4 address as netip writes it.
func isIPv4(b []byte) bool {
	parts, digits, value := 1, 0, 0
	for _, c := range b {
		switch {
		case c == '.' && digits > 0 && parts < 4:
			parts, digits, value = parts+1, 0, 0
		case '0' <= c && c <= '9' && (digits == 0 || value > 0):
			digits, value = digits+1, value*10+int(c-'0')
			if value > math.MaxUint8 {
				return false
			}
		default:
			return false
		}
	}
	return parts == 4 && digits > 0
}

// weight reads the UInt32Value of a weight, which is not 0.
func weight(b []byte) (uint32, bool) {
	number, kind, _, n := consume(b)
	if n != len(b) || n < 0 || number != wrapperValue || kind != protowire.VarintType {
		return 0, false
	}
	v := varint(b)
	return uint32(v), v > 0 && v <= math.MaxUint32
}

// metadataOf reads metadata, by the way of all messages.
func (w *wireEndpoints) metadataOf(b []byte) (map[string]map[string]string, bool) {
	if known, ok := w.metadata[string(b)]; ok {
		return known, true
	}
	// In its place, so that it is judged as it would be there.
	m := &endpointv3.LbEndpoint{Metadata: &corev3.Metadata{}}
	if proto.Unmarshal(b, m.GetMetadata()) != nil {
		return nil, false
	}
	d := &decoder{}
	if d.check(path{}, m); d.problems.err() != nil {
		return nil, false
	}
	metadata := endpointMetadata(m.GetMetadata())
	if len(w.metadata) < maxMetadata {
		w.metadata[string(b)] = metadata
	}
	return metadata, true
}
