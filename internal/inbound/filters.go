package inbound

import (
	"errors"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/cors"
	"github.com/inboardmesh/inboard/internal/filter/extauthz"
	"github.com/inboardmesh/inboard/internal/filter/rbac"
)

// filterBuilder makes the filters of a chain that run on requests that arrive. What
// lives longer than one version of a configuration belongs to the Listeners.
func (l *Listeners) filterBuilder(chain []discovery.HTTPFilter) filter.Build {
	conditions := conditionsOf(chain)
	return func(config discovery.FilterConfig) (filter.Filter, error) { return l.buildFilter(config, conditions) }
}

// conditionsOf are those under which filters of a chain ask a service.
func conditionsOf(chain []discovery.HTTPFilter) (conditions []*discovery.MetadataMatch) {
	for i := range chain {
		if asks, ok := chain[i].Config.(*discovery.ExtAuthz); ok && asks.EnabledMetadata != nil {
			conditions = append(conditions, asks.EnabledMetadata)
		}
	}
	return conditions
}

func (l *Listeners) buildFilter(config discovery.FilterConfig, conditions []*discovery.MetadataMatch) (filter.Filter, error) {
	switch config := config.(type) {
	case *discovery.Fault:
		return l.faults.Filter(config), nil
	case *discovery.CORS:
		return cors.New(config), nil
	case *discovery.JWTAuthn:
		return l.tokens.Filter(config)
	case *discovery.ExtAuthz:
		return extauthz.New(config, l.services, l.options.Hooks), nil
	case *discovery.RBAC:
		if slices.ContainsFunc(conditions, func(m *discovery.MetadataMatch) bool { return rbac.Decides(config, m) }) {
			return rbac.NewCondition(config, l.options.Hooks), nil
		}
		return rbac.New(config, l.options.Hooks), nil
	}
	return nil, errors.New("not supported")
}
