package condition

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// attribute is one thing that an expression may ask about.
type attribute struct {
	kind *types.Type
	// get returns the value; false if it is missing.
	get func(*evaluation) (any, bool)
}

// attributes are those of Envoy that a server of this mesh knows, by variable and
// field. What is about the response, the upstream or the filter state is not.
var attributes = map[string]map[string]attribute{
	"request": {
		"path":      text(func(e *evaluation) (any, bool) { return e.read("path", e.facts.Request.targets()), true }),
		"url_path":  text(func(e *evaluation) (any, bool) { return e.read("path", e.facts.Request.Paths), true }),
		"host":      header("host"),
		"method":    text(func(e *evaluation) (any, bool) { return e.facts.Request.Method, true }),
		"scheme":    text(func(e *evaluation) (any, bool) { return e.facts.Request.Scheme, e.facts.Request.Scheme != "" }),
		"protocol":  text(func(e *evaluation) (any, bool) { return e.facts.Request.Protocol, e.facts.Request.Protocol != "" }),
		"query":     text(func(e *evaluation) (any, bool) { return e.facts.Request.Query, true }),
		"referer":   header("referer"),
		"useragent": header("user-agent"),
		"id":        header("x-request-id"),
		"time": {cel.TimestampType, func(e *evaluation) (any, bool) {
			return e.facts.Request.Start, !e.facts.Request.Start.IsZero()
		}},
		"headers": {cel.MapType(cel.StringType, cel.StringType), func(e *evaluation) (any, bool) { return headers{e}, true }},
	},
	"metadata": {
		"filter_metadata": {cel.MapType(cel.StringType, cel.MapType(cel.StringType, cel.DynType)), func(e *evaluation) (any, bool) {
			return e.facts.Request.Metadata, true
		}},
	},
	"source":      endpoint(func(f *Facts) netip.AddrPort { return f.Source }),
	"destination": endpoint(func(f *Facts) netip.AddrPort { return f.Destination }),
	"connection": {
		"mtls":                  {cel.BoolType, func(e *evaluation) (any, bool) { return e.facts.Certificate != nil, true }},
		"requested_server_name": text(func(e *evaluation) (any, bool) { return e.facts.ServerName, true }),
		"tls_version": text(func(e *evaluation) (any, bool) {
			version := tlsVersion(e.facts.TLSVersion)
			return version, version != ""
		}),
		"subject_peer_certificate": text(func(e *evaluation) (any, bool) {
			if e.facts.Certificate == nil {
				return nil, false
			}
			return e.facts.Certificate.Subject.String(), true
		}),
		"dns_san_peer_certificate": text(func(e *evaluation) (any, bool) {
			if e.facts.Certificate == nil || len(e.facts.Certificate.DNSNames) == 0 {
				return nil, false
			}
			return e.read("dns", e.facts.Certificate.DNSNames), true
		}),
		"uri_san_peer_certificate": text(func(e *evaluation) (any, bool) {
			if e.facts.Certificate == nil || len(e.facts.Certificate.URIs) == 0 {
				return nil, false
			}
			names := make([]string, len(e.facts.Certificate.URIs))
			for i, uri := range e.facts.Certificate.URIs {
				names[i] = uri.String()
			}
			return e.read("uri", names), true
		}),
		"sha256_peer_certificate_digest": text(func(e *evaluation) (any, bool) {
			if e.facts.Certificate == nil {
				return nil, false
			}
			sum := sha256.Sum256(e.facts.Certificate.Raw)
			return hex.EncodeToString(sum[:]), true
		}),
	},
}

func text(get func(*evaluation) (any, bool)) attribute { return attribute{cel.StringType, get} }

func header(name string) attribute {
	return text(func(e *evaluation) (any, bool) {
		readings, ok := e.header(name)
		if !ok {
			return nil, false
		}
		return e.read(name, readings), true
	})
}

func endpoint(of func(*Facts) netip.AddrPort) map[string]attribute {
	return map[string]attribute{
		"address": text(func(e *evaluation) (any, bool) { return of(e.facts).String(), of(e.facts).IsValid() }),
		"port":    {cel.IntType, func(e *evaluation) (any, bool) { return int64(of(e.facts).Port()), of(e.facts).IsValid() }},
	}
}

// typeName is the type of a variable, for messages.
func typeName(variable string) string { return "envoy." + variable }

// provider tells the checker the fields of the variables.
type provider struct{ *types.Registry }

// FindStructType finds the type of a variable.
func (p provider) FindStructType(name string) (*types.Type, bool) {
	if variable, ok := strings.CutPrefix(name, "envoy."); ok && attributes[variable] != nil {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Registry.FindStructType(name)
}

// FindStructFieldType finds a field of a variable.
func (p provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	variable, ok := strings.CutPrefix(name, "envoy.")
	if !ok || attributes[variable] == nil {
		return p.Registry.FindStructFieldType(name, field)
	}
	a, ok := attributes[variable][field]
	if !ok {
		return nil, false
	}
	return &types.FieldType{
		Type: a.kind,
		IsSet: func(target any) bool {
			e, ok := target.(*evaluation)
			if ok {
				_, ok = a.get(e)
			}
			return ok
		},
		GetFrom: func(target any) (any, error) {
			e, ok := target.(*evaluation)
			if !ok {
				return nil, errors.New("not an attribute")
			}
			value, ok := a.get(e)
			if !ok {
				return nil, fmt.Errorf("no %s.%s", variable, field)
			}
			return value, nil
		},
	}, true
}

// connections and requests are what expressions about them may use; made when it
// is needed first.
var (
	connections = sync.OnceValues(func() (*cel.Env, error) { return newEnv("source", "destination", "connection") })
	requests    = sync.OnceValues(func() (*cel.Env, error) {
		return newEnv("source", "destination", "connection", "request", "metadata")
	})
)

func newEnv(variables ...string) (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	options := []cel.EnvOption{
		cel.StdLib(), cel.CustomTypeAdapter(registry), cel.CustomTypeProvider(provider{registry}), cel.ExpressionNodeLimit(maxNodes),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v, cel.ObjectType(typeName(v))))
	}
	return cel.NewCustomEnv(options...)
}
