package arrival

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// The headers of this package.
const (
	forwardedFor    = "x-forwarded-for"
	forwardedProto  = "x-forwarded-proto"
	clientCert      = "x-forwarded-client-cert"
	requestID       = "x-request-id"
	internalRequest = "x-envoy-internal"
	externalAddress = "x-envoy-external-address"
)

// foreign are the headers by which members of a mesh tell each other what they
// did and want. From anybody else they are not believed (rows BH2 and V14). Those
// that ask for retries and timeouts are not here: a server acts on none but the
// deadline, which can only shorten. Nor are those that number the attempts: they
// decide nothing, and a mesh without mutual TLS has them too.
var foreign = [...]string{
	internalRequest, externalAddress,
	"x-envoy-original-path", "x-envoy-original-host", "x-envoy-original-url",
	"x-envoy-decorator-operation", "x-envoy-downstream-service-cluster", "x-envoy-downstream-service-node",
	"x-envoy-force-trace", "x-envoy-ip-tags", "x-envoy-ratelimited",
	"x-envoy-original-method", "x-envoy-original-dst-host", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id",
	"x-envoy-auth-failure-mode-allowed", "x-envoy-auth-partial-body", "x-envoy-overloaded", "x-envoy-local-overloaded", "x-envoy-degraded",
	"x-envoy-immediate-health-check-fail", "x-envoy-upstream-service-time",
}

// Peer is who sent a request, as the connection shows.
type Peer struct {
	// Address is the "host:port" of the other end.
	Address string
	// TLS is nil in plaintext.
	TLS *tls.ConnectionState
	// Verified is whether mutual TLS has verified a member of the mesh.
	Verified bool
	// Own is the certificate of this server, for x-forwarded-client-cert; nil in
	// plaintext.
	Own meshtls.Source
}

// Receive puts the headers of a request in order and returns the client's
// address: the peer's, or one without a port from x-forwarded-for.
func Receive(config *discovery.Forwarding, h route.HeaderMap, peer *Peer) (client string) {
	keepNominations(h)
	clientCertificate(config, h, peer)
	client, single := clientOf(config, h, peer)
	inside := single && within(client, config.Internal)
	edge := config.Client == discovery.ClientIsPeer && !inside
	if edge || !peer.Verified && !inside {
		for _, name := range foreign {
			remove(h, name)
		}
	}
	if config.Client != discovery.ClientUnsaid {
		announce(config, h, peer, client, inside, edge)
	}
	if config.RequestID && (edge && !config.KeepRequestID || len(h.Values(requestID)) == 0) {
		h.Set(requestID, newID())
	}
	return client
}

// keepNominations sees to it that no client has headers removed on the way on, as
// hop-by-hop headers are that the header Connection names: ours, and those that
// filters and routes add (row V15). What is kept are the words of HTTP itself.
func keepNominations(h route.HeaderMap) {
	list := h.Values("connection")
	if len(list) == 0 {
		return
	}
	var kept []string
	all := true
	for _, value := range list {
		for token := range strings.SplitSeq(value, ",") {
			if token = strings.TrimSpace(token); isHopByHop(token) {
				kept = append(kept, token)
			} else {
				all = false
			}
		}
	}
	switch {
	case all:
	case len(kept) == 0:
		h.Del("connection")
	default:
		h.Set("connection", strings.Join(kept, ", "))
	}
}

// isHopByHop reports whether a word of the header Connection is one of HTTP's.
func isHopByHop(word string) bool {
	switch strings.ToLower(word) {
	case "close", "keep-alive", "upgrade", "te", "trailer", "transfer-encoding", "http2-settings",
		"proxy-connection", "proxy-authenticate", "proxy-authorization":
		return true
	}
	return false
}

// announce tells the application where the request comes from.
func announce(config *discovery.Forwarding, h route.HeaderMap, peer *Peer, client string, inside, edge bool) {
	if edge {
		h.Set(externalAddress, hostOf(client))
	}
	if inside {
		h.Set(internalRequest, "true")
	} else {
		remove(h, internalRequest)
	}
	if config.Client == discovery.ClientIsPeer && !config.SkipAppend {
		h.Set(forwardedFor, joined(h.Values(forwardedFor), hostOf(peer.Address)))
	}
	if config.Client == discovery.ClientIsPeer && config.Hops == 0 && len(config.TrustedProxies) == 0 || len(h.Values(forwardedProto)) == 0 {
		proto := "http"
		if peer.TLS != nil {
			proto = "https"
		}
		h.Set(forwardedProto, proto)
	}
}

// remove spares the map the work if the header is not there, as it mostly is not.
func remove(h route.HeaderMap, name string) {
	if len(h.Values(name)) > 0 {
		h.Del(name)
	}
}

// clientOf finds the client's address (row BH1). single is whether nobody stood
// between it and whoever said so.
func clientOf(config *discovery.Forwarding, h route.HeaderMap, peer *Peer) (client string, single bool) {
	list := h.Values(forwardedFor)
	switch {
	case len(config.TrustedProxies) > 0:
		return beyond(config.TrustedProxies, list, peer.Address)
	case config.Client == discovery.ClientIsPeer:
		// The peer itself is the last hop, and is not in the list yet.
		if config.Hops > 0 {
			if address, _, ok := fromRight(list, config.Hops); ok {
				return address, false
			}
		}
		return peer.Address, len(list) == 0
	case config.Hops > 0 || config.Client == discovery.ClientIsForwarded && peer.Verified:
		if address, single, ok := fromRight(list, config.Hops+1); ok {
			return address, single
		}
	}
	return peer.Address, len(list) == 0
}

// beyond is the first address, from the right, that is not a trusted proxy's.
func beyond(proxies []netip.Prefix, list []string, peer string) (client string, single bool) {
	client, single = peer, len(list) == 0
	for n := uint32(1); within(client, proxies); n++ {
		address, first, ok := fromRight(list, n)
		if !ok {
			return client, single
		}
		client, single = address, first
	}
	return client, single
}

// fromRight is the n-th address of x-forwarded-for from the right, from 1. What
// is no address has no place in the list: everything left of it is as good as
// not there.
func fromRight(list []string, n uint32) (address string, single, ok bool) {
	for _, rest := range slices.Backward(list) {
		for {
			comma := strings.LastIndexByte(rest, ',')
			parsed, err := netip.ParseAddr(strings.TrimSpace(rest[comma+1:]))
			if err != nil || parsed.Zone() != "" {
				return "", false, false
			}
			if n--; n == 0 {
				return parsed.Unmap().String(), comma < 0 && len(list) == 1, true
			}
			if comma < 0 {
				break
			}
			rest = rest[:comma]
		}
	}
	return "", false, false
}

// within reports whether an address, with or without a port, is in one of the
// ranges.
func within(address string, ranges []netip.Prefix) bool {
	if len(ranges) == 0 {
		return false
	}
	ip, err := netip.ParseAddr(hostOf(address))
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	for _, r := range ranges {
		if r.Contains(ip) {
			return true
		}
	}
	return false
}

// hostOf is an address without its port, if it has one.
func hostOf(address string) string {
	if parsed, err := netip.ParseAddrPort(address); err == nil {
		return parsed.Addr().Unmap().String()
	}
	return address
}

func joined(list []string, last string) string {
	if len(list) == 0 {
		return last
	}
	return strings.Join(list, ",") + "," + last
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	text := make([]byte, 0, 36)
	for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, part)
	}
	return string(text)
}
