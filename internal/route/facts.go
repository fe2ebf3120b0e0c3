package route

import (
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// Facts are what the commands of a header value stand for, beside the request.
// What is not known is left zero and gives the empty text.
type Facts struct {
	// Protocol is "HTTP/1.1" or "HTTP/2".
	Protocol string
	// Start is when the call began.
	Start time.Time
	// Remote is the client's address: that of the connection's other end, or
	// what trusted proxies say of it, without a port. Peer is the other end.
	Remote, Peer string
	// Local and PeerID are of the connection that the request came by.
	Local  net.Addr
	PeerID string
	// Status and Upstream are of the response; Upstream is the endpoint.
	Status   int
	Upstream string
}

// expand computes a text for a decision. response finds the headers of the
// response, nil before there is one.
func (d *Decision) expand(format *discovery.Format, req *Request, f *Facts, response Header) string {
	var room [128]byte
	text := room[:0]
	for i := range format.Parts {
		part := &format.Parts[i]
		if part.Command == discovery.CommandText {
			text = append(text, part.Text...)
			continue
		}
		value := d.fact(part, req, f, response)
		if part.MaxLength > 0 && len(value) > part.MaxLength {
			value = value[:part.MaxLength]
		}
		text = append(text, value...)
	}
	return string(text)
}

func (d *Decision) fact(part *discovery.FormatPart, req *Request, f *Facts, response Header) string {
	switch part.Command {
	case discovery.CommandRequestHeader:
		if value := req.firstValue(part.Name); value != "" || part.Alternative == "" {
			return value
		}
		return req.firstValue(part.Alternative)
	case discovery.CommandQueryParameter:
		value, _ := queryValue(req.Query, part.Name)
		return printable(value)
	case discovery.CommandProtocol:
		return f.Protocol
	case discovery.CommandStartTime:
		return discovery.FormatTime(f.Start.UTC(), part.Text)
	case discovery.CommandHostname:
		return hostname()
	case discovery.CommandRouteName:
		if d.Route == nil {
			return ""
		}
		return d.Route.Name
	case discovery.CommandCluster:
		return d.ClusterName(req)
	case discovery.CommandRemoteAddress:
		return f.Remote
	case discovery.CommandRemoteHost:
		return hostOf(f.Remote)
	case discovery.CommandRemotePort:
		return portOf(f.Remote)
	case discovery.CommandLocalAddress:
		return addressOf(f.Local)
	case discovery.CommandLocalHost:
		return hostOf(addressOf(f.Local))
	case discovery.CommandLocalPort:
		return portOf(addressOf(f.Local))
	case discovery.CommandPeerURISAN:
		return f.PeerID
	case discovery.CommandResponseHeader:
		if response == nil {
			return ""
		}
		if value := firstOf(response, part.Name); value != "" || part.Alternative == "" {
			return value
		}
		return firstOf(response, part.Alternative)
	case discovery.CommandResponseCode:
		if f.Status == 0 {
			return ""
		}
		return strconv.Itoa(f.Status)
	case discovery.CommandUpstreamAddress:
		return f.Upstream
	}
	return ""
}

// firstValue is the first value of a header or the value of a pseudo-header.
func (r *Request) firstValue(name string) string {
	if value, ok := r.pseudo(name); ok {
		return value
	}
	if r.Header == nil {
		return ""
	}
	return firstOf(r.Header, name)
}

func firstOf(h Header, name string) string {
	if values := h.Values(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// printable escapes what a header value cannot have: a parameter may hold
// anything once it is decoded.
func printable(value string) string {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c >= 0x7f {
			return url.QueryEscape(value)
		}
	}
	return value
}

// hostname is the machine's name, which is asked for once: it goes into headers.
var hostname = sync.OnceValue(func() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
})

func addressOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// hostOf is an address without its port, if it has one.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return strings.Trim(host, "[]")
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return port
}
