package explain

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
)

// redirects says which redirects a route follows within the call.
func redirects(p *discovery.InternalRedirect) string {
	if p == nil || p.MaxRedirects == 0 {
		return ""
	}
	statuses := make([]string, len(p.Statuses))
	for i, status := range p.Statuses {
		statuses[i] = strconv.Itoa(status)
	}
	parts := []string{fmt.Sprintf("up to %d of status %s are followed within the call", p.MaxRedirects, strings.Join(statuses, " or "))}
	switch {
	case p.CrossScheme && p.SafeCrossScheme:
		parts = append(parts, "not from http to https")
	case !p.CrossScheme:
		parts = append(parts, "to the same scheme")
	}
	if p.AllowedRoutes != nil {
		parts = append(parts, "to the routes "+strings.Join(p.AllowedRoutes, ", "))
	}
	if p.PreviousRoutes {
		parts = append(parts, "from a route to the same one once")
	}
	if len(p.CopyHeaders) > 0 {
		parts = append(parts, "with the headers "+strings.Join(p.CopyHeaders, ", ")+" of the response")
	}
	return strings.Join(parts, ", ")
}
