package health

import "time"

// Config is how the endpoints of a cluster are checked: Envoy's HealthCheck. It
// must not be changed once it is in use. Exactly one of HTTP, GRPC and TCP is set.
// The zero value of a time that is a default of another one is that one; the
// decoder of the configuration fills in the others.
type Config struct {
	// Timeout is how long a check may take, the time to connect included.
	Timeout time.Duration
	// Interval is the time from the end of a check to the next one, of an
	// endpoint that is well and gets traffic.
	Interval time.Duration
	// InitialJitter is the most that the first check is delayed, at random.
	InitialJitter time.Duration
	// IntervalJitter is the most that is added to an interval, at random;
	// IntervalJitterPercent is in percent of the interval, and is added as well.
	IntervalJitter        time.Duration
	IntervalJitterPercent uint32
	// NoTrafficInterval replaces the intervals while the cluster has never had a
	// connection for calls; Envoy's default is 60 s. NoTrafficHealthyInterval is
	// that for endpoints that are well; 0 is NoTrafficInterval.
	NoTrafficInterval        time.Duration
	NoTrafficHealthyInterval time.Duration
	// UnhealthyInterval is for endpoints that are not well; 0 is Interval.
	UnhealthyInterval time.Duration
	// UnhealthyEdgeInterval is after a failure that does not yet make an endpoint
	// unhealthy; 0 is UnhealthyInterval.
	UnhealthyEdgeInterval time.Duration
	// HealthyEdgeInterval is after a success that does not yet make an endpoint
	// healthy; 0 is Interval.
	HealthyEdgeInterval time.Duration

	// UnhealthyThreshold is how many failures in a row make an endpoint unhealthy,
	// HealthyThreshold how many successes make it healthy again. 0 counts as 1.
	UnhealthyThreshold uint32
	HealthyThreshold   uint32

	// Port is where to ask if that is not where calls go; 0 is the same port.
	Port uint32
	// CloseConnection makes each check one over a new connection.
	CloseConnection bool
	// ExcludeNew leaves endpoints that were added, and have not been checked yet, out
	// of the calculation of how much is healthy, in place of counting them as
	// unhealthy.
	ExcludeNew bool
	// ALPN is what is offered in the TLS handshake in place of the protocol's own
	// name; nil leaves it.
	ALPN []string

	HTTP *HTTP
	GRPC *GRPC
	TCP  *TCP
}

// Codec is the version of HTTP that a check speaks.
type Codec uint8

const (
	// HTTP1 is HTTP/1.1, Envoy's default.
	HTTP1 Codec = iota
	// HTTP2 is HTTP/2.
	HTTP2
	// ALPN lets the TLS handshake decide; without TLS it is HTTP/1.1.
	ALPN
)

// HTTP is a check by an HTTP request.
type HTTP struct {
	// Method is "GET" if it is empty.
	Method string
	// Host is the request's host; "" is the name of the cluster. An endpoint may
	// have its own.
	Host string
	Path string
	// Set are headers to set, in order; Remove are headers to leave out of those
	// that a check has by itself. Names are in any case.
	Set    []Header
	Remove []string
	// Body is sent as the request's.
	Body []byte
	// Expected are the statuses that are a success; nil is 200 alone.
	Expected []Statuses
	// Retriable are the statuses that are a failure which counts towards
	// UnhealthyThreshold. Every other makes an endpoint unhealthy at once.
	Retriable []Statuses
	// Receive must be found in the response's body, in this order, within the
	// first BodyLimit bytes. 0 is no limit but that of the implementation.
	Receive   [][]byte
	BodyLimit uint64
	Codec     Codec
	// Service, if not nil, is asked about the response header
	// x-envoy-upstream-healthchecked-cluster: an endpoint that belongs to another
	// service is not well.
	Service Matcher
}

// Matcher matches a text.
type Matcher interface{ Matches(text string) bool }

// Header is a header of a request.
type Header struct{ Name, Value string }

// Statuses is a range of HTTP statuses: Start is in it, End is not.
type Statuses struct{ Start, End int }

// GRPC is a check by a call of grpc.health.v1.Health/Check.
type GRPC struct {
	// Service is the service that is asked about; "" is the server as a whole.
	Service string
	// Authority is the call's; "" is the name of the cluster. An endpoint may have
	// its own.
	Authority string
	// Set is metadata to send.
	Set []Header
}

// TCP is a check by connecting.
type TCP struct {
	// Send is sent when connected.
	Send []byte
	// Receive must be found in what comes back, in this order. Without it an
	// endpoint that can be connected to is well.
	Receive [][]byte
}

// Status says what an HTTP status means.
func (h *HTTP) Status(status int) Result {
	switch {
	case h.Expected == nil && status == 200, within(h.Expected, status):
		return Success
	case within(h.Retriable, status):
		return Retriable
	}
	return Failure
}

func within(ranges []Statuses, status int) bool {
	for _, r := range ranges {
		if status >= r.Start && status < r.End {
			return true
		}
	}
	return false
}

// First is how long to wait before the first check. random returns any number.
func (c *Config) First(random func() uint64) time.Duration {
	return upTo(c.InitialJitter, random)
}

// Next is how long to wait after a check. traffic tells whether the cluster has
// ever had a connection for calls. random returns any number.
func (c *Config) Next(last Change, traffic bool, random func() uint64) time.Duration {
	var base time.Duration
	switch {
	case !traffic && last.Success && !last.Pending:
		base = or(c.NoTrafficHealthyInterval, c.NoTrafficInterval)
	case !traffic:
		base = c.NoTrafficInterval
	case last.Success && last.Pending:
		base = or(c.HealthyEdgeInterval, c.Interval)
	case last.Success:
		base = c.Interval
	case last.Pending:
		base = or(c.UnhealthyEdgeInterval, or(c.UnhealthyInterval, c.Interval))
	default:
		base = or(c.UnhealthyInterval, c.Interval)
	}
	share := time.Duration(float64(base) / 100 * float64(c.IntervalJitterPercent))
	return base + upTo(share, random) + upTo(c.IntervalJitter, random)
}

func or(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// upTo draws from [0, d).
func upTo(d time.Duration, random func() uint64) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(random() % uint64(d))
}
