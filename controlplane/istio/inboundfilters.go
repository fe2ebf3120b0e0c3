package istio

import (
	"fmt"
	"sync"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// inboundKey is what the listeners of nodes can differ in, beside their name and
// address.
type inboundKey struct {
	mode mtlsMode
	// tcp is whether connections are of TCP.
	tcp bool
	// request are the RequestAuthentications that apply, as a text.
	request string
	// policies are the AuthorizationPolicies that apply, as a text.
	policies string
}

// maxTemplates bounds the templates that are kept. There are as many as there are
// sets of policies, and a node chooses by its labels to which of them it is subject.
const maxTemplates = 1 << 10

// inboundTemplates makes the listeners of nodes, each kind once.
type inboundTemplates struct {
	mu   sync.Mutex
	made map[inboundKey]*inboundListener // guarded by mu
}

// inboundFor is what the listener of a port of a node has, nil if it cannot be
// made: then the node has none, and accepts nothing.
func (c *Config) inboundFor(node Node, port uint32) *inboundListener {
	applied := c.requestPoliciesOf(node, port)
	policies := c.policiesOf(node, port)
	mode := c.inboundMode(node, port)
	if node.NativeGRPC {
		mode = c.nativeMode(node, port, mode)
	}
	key := inboundKey{mode: mode, tcp: c.speaksTCP(node, port), request: fmt.Sprint(applied), policies: titles(policies)}
	c.inbound.mu.Lock()
	defer c.inbound.mu.Unlock()
	if l, ok := c.inbound.made[key]; ok {
		return l
	}
	l, err := c.newInbound(key, applied, policies)
	if err != nil {
		l = nil // what Envoy's constraints refuse was looked for when the configuration was made
	}
	if c.inbound.made == nil || len(c.inbound.made) == maxTemplates {
		c.inbound.made = make(map[inboundKey]*inboundListener)
	}
	c.inbound.made[key] = l
	return l
}

func (c *Config) newInbound(key inboundKey, applied []int, policies [][]*authorizationPolicy) (*inboundListener, error) {
	if key.tcp {
		filters, err := tcpFilters(policies)
		if err != nil {
			return nil, err
		}
		return newInboundListener(c.opts, key.mode, filters)
	}
	var filters []*hcmv3.HttpFilter
	for i, set := range policies {
		suffix := ""
		if i > 0 {
			suffix = "." + itoa(i)
		}
		custom, err := c.customFilters(set, suffix)
		if err != nil {
			return nil, err
		}
		filters = append(filters, custom...)
	}
	if m := c.jwtAuthn(applied); m != nil {
		f, err := httpFilter(jwtFilter, m)
		if err != nil {
			return nil, err
		}
		filters = append(filters, f)
	}
	// After the tokens, whose claims they look at.
	authorization, err := authorizationFilters(policies)
	if err != nil {
		return nil, err
	}
	manager, err := inboundManager(append(filters, authorization...))
	if err != nil {
		return nil, err
	}
	return newInboundListener(c.opts, key.mode, []*listenerv3.Filter{{
		Name: hcmFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager},
	}})
}
