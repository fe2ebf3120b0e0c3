package route

// Request is what routing may look at, in terms that HTTP and gRPC share.
type Request struct {
	// Method is the HTTP method; "POST" for gRPC.
	Method string
	// Scheme is "http" or "https".
	Scheme string
	// Host is the authority with its port, if it has one.
	Host string
	// Path is the escaped path without the query; "/pkg.Service/Method" for
	// gRPC.
	Path string
	// Query is the raw query without the question mark.
	Query string
	// Header finds headers by lower-case name.
	Header Header
	// Source is where the request comes from, and Channel the number of the
	// channel that it is made on; "" and 0 are not known.
	Source  string
	Channel uint64
	// Metadata is what filters have left; nil without any.
	Metadata Metadata
}

// Metadata is the dynamic metadata of a request: values in namespaces, which are
// the names of the filters that set them. Values are those of encoding/json:
// nil, bool, float64, string, []any, map[string]any.
type Metadata map[string]map[string]any

// PathAndQuery is the request's target: the path, and the query if there is one.
func (r *Request) PathAndQuery() string {
	if r.Query == "" {
		return r.Path
	}
	return r.Path + "?" + r.Query
}

// pseudo returns what a pseudo-header stands for. "host" is ":authority".
func (r *Request) pseudo(name string) (value string, ok bool) {
	switch name {
	case ":method":
		return r.Method, true
	case ":path":
		return r.PathAndQuery(), true
	case ":authority", "host":
		return r.Host, true
	case ":scheme":
		return r.Scheme, true
	}
	return "", false
}

// Header is read access to a request's headers.
type Header interface {
	// Values returns the values of the header with this name, nil if it is
	// absent.
	Values(name string) []string
}

// HeaderMap is write access to headers, for header mutations. Names are lower
// case.
type HeaderMap interface {
	Header
	Set(name, value string)
	Add(name, value string)
	Del(name string)
}
