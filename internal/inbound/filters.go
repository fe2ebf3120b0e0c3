package inbound

import (
	"errors"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/cors"
	"github.com/inboardmesh/inboard/internal/filter/extauthz"
	"github.com/inboardmesh/inboard/internal/filter/rbac"
)

// buildFilter makes a filter that runs on requests that arrive. What lives
// longer than one version of a configuration belongs to the Listeners.
func (l *Listeners) buildFilter(config discovery.FilterConfig) (filter.Filter, error) {
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
		return rbac.New(config, l.options.Hooks), nil
	}
	return nil, errors.New("not supported")
}
