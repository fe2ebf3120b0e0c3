package istio

import (
	"strings"

	"github.com/inboardmesh/inboard/internal/near"
)

// maxOffers is for how many hosts that do not exist others are looked for.
const maxOffers = 50

// nearHosts offers the hosts whose names are like one that does not exist:
// ": did you mean ...?", "" without any.
// To look through many is worth it for the first problems only.
func (r *registry) nearHosts(host string) string {
	if r.offers++; r.offers > maxOffers {
		return ""
	}
	return near.Question(near.Names(host, sortedKeys(r.services)))
}

// portNumbers lists the ports of a service.
func (s *service) portNumbers() string {
	if len(s.ports) == 0 {
		return "none"
	}
	numbers := make([]string, len(s.ports))
	for i, p := range s.ports {
		numbers[i] = itoa(int(p.number))
	}
	return strings.Join(numbers, ", ")
}
