package relay

import (
	"fmt"

	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
)

// filters is the HTTP filters of a listener as a guest gets them: those that it
// applies, and how to write their configuration in a route, by their names.
type filters struct {
	list      []*hcmv3.HttpFilter
	overrides map[string]func(where string, o discovery.FilterOverride) (proto.Message, error)
}

func (f *filters) add(name string, config proto.Message) error {
	packed, err := pack(config)
	if err != nil {
		return err
	}
	f.list = append(f.list, &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed}})
	return nil
}

// withRouter are the filters with the router, which is the last.
func (f *filters) withRouter() ([]*hcmv3.HttpFilter, error) {
	all := filters{}
	if f != nil {
		all.list = append(all.list, f.list...)
	}
	if err := all.add("envoy.filters.http.router", &routerv3.Router{}); err != nil {
		return nil, err
	}
	return all.list, nil
}

// routeConfigs writes what a level of a route table says of the filters. grpc-go
// knows no disabled filters: a configuration that does nothing stands for one.
func (f *filters) routeConfigs(where string, overrides map[string]discovery.FilterOverride) (map[string]*anypb.Any, error) {
	var configs map[string]*anypb.Any
	for name, override := range overrides {
		write := f.overrides[name]
		if write == nil {
			continue // it is for a filter that is not there
		}
		config, err := write(where, override)
		if err != nil {
			return nil, err
		}
		packed, err := pack(config)
		if err != nil {
			return nil, err
		}
		if configs == nil {
			configs = make(map[string]*anypb.Any, len(overrides))
		}
		configs[name] = packed
	}
	return configs, nil
}

// clientFilters writes the filters of a destination.
func (e *encoder) clientFilters(where string, list []discovery.HTTPFilter) (*filters, error) {
	f := &filters{overrides: make(map[string]func(string, discovery.FilterOverride) (proto.Message, error))}
	for i := range list {
		filter := &list[i]
		switch config := filter.Config.(type) {
		case *discovery.Fault:
			base := config
			if filter.Disabled {
				base = &discovery.Fault{}
			}
			if err := f.add(filter.Name, e.fault(where, base)); err != nil {
				return nil, err
			}
			f.overrides[filter.Name] = func(where string, o discovery.FilterOverride) (proto.Message, error) {
				fault, ok := o.Config.(*discovery.Fault)
				switch {
				case o.Disabled:
					fault = &discovery.Fault{}
				case o.Config == nil:
					fault = config
				case !ok:
					return nil, fmt.Errorf("filter %q has a configuration of %s", filter.Name, typeName(o.Config))
				}
				return e.fault(where, fault), nil
			}
		case *discovery.CORS: // gRPC's own clients have no origin
		case *discovery.StatefulSession:
			if config.Cookie != "" || config.Header != "" {
				e.leave(where, "sessions do not stay with an endpoint")
			}
		default:
			return nil, fmt.Errorf("filter %q: a native gRPC client cannot apply %s: call with mesh.DialOptions instead", filter.Name, typeName(config))
		}
	}
	return f, nil
}

// serverFilters writes the filters of a server. tables are the route tables that
// may switch a filter on.
func (e *encoder) serverFilters(chain *discovery.FilterChain, facts serverFacts) (*filters, error) {
	f := &filters{overrides: make(map[string]func(string, discovery.FilterOverride) (proto.Message, error))}
	for i := range chain.Filters {
		filter := &chain.Filters[i]
		switch config := filter.Config.(type) {
		case *discovery.RBAC:
			base := config
			if filter.Disabled {
				base = &discovery.RBAC{}
			}
			where := fmt.Sprintf("filter %q", filter.Name)
			rules, err := e.rbac(where, base, facts)
			if err != nil {
				return nil, fmt.Errorf("filter %q: %w", filter.Name, err)
			}
			if err := f.add(filter.Name, rules); err != nil {
				return nil, err
			}
			f.overrides[filter.Name] = e.rbacOverride(filter.Name, config, facts)
		case *discovery.CORS: // browsers enforce it, and do not speak gRPC
		default:
			if used := inUse(filter, chain.Routes); used != nil {
				return nil, fmt.Errorf("filter %q: a native gRPC server cannot enforce %s: %w", filter.Name, typeName(used), errInstead)
			}
		}
	}
	return f, nil
}

func (e *encoder) rbacOverride(name string, base *discovery.RBAC, facts serverFacts) func(string, discovery.FilterOverride) (proto.Message, error) {
	return func(where string, o discovery.FilterOverride) (proto.Message, error) {
		config, ok := o.Config.(*discovery.RBAC)
		switch {
		case o.Disabled:
			// Not without a policy, which grpc-go reads unasked (v1.85.0).
			return &httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{}}, nil
		case o.Config == nil:
			config = base
		case !ok:
			return nil, fmt.Errorf("filter %q has a configuration of %s", name, typeName(o.Config))
		}
		rules, err := e.rbac(where, config, facts)
		if err != nil {
			return nil, fmt.Errorf("filter %q: %w", name, err)
		}
		return &httprbacv3.RBACPerRoute{Rbac: rules}, nil
	}
}

// inUse returns the configuration with which a filter does anything, nil if it
// does nothing anywhere.
func inUse(filter *discovery.HTTPFilter, table *discovery.RouteTable) discovery.FilterConfig {
	if !filter.Disabled && !isIdle(filter.Config) {
		return filter.Config
	}
	var used discovery.FilterConfig
	look := func(overrides map[string]discovery.FilterOverride) {
		o, ok := overrides[filter.Name]
		switch {
		case !ok || o.Disabled:
		case o.Config == nil && !isIdle(filter.Config):
			used = filter.Config
		case o.Config != nil && !isIdle(o.Config):
			used = o.Config
		}
	}
	for _, host := range table.VirtualHosts {
		look(host.Filters)
		for _, r := range host.Routes {
			look(r.Filters)
		}
	}
	return used
}

// isIdle reports whether a configuration makes its filter do nothing.
func isIdle(config discovery.FilterConfig) bool {
	switch config := config.(type) {
	case *discovery.Fault:
		return idle(config)
	case *discovery.StatefulSession:
		return config.Cookie == "" && config.Header == ""
	}
	return false
}
