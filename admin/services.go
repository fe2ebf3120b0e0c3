package admin

import (
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// service is a [mesh.ServiceState] as JSON.
type service struct {
	Kind      string   `json:"kind"`
	Cluster   string   `json:"cluster"`
	Address   string   `json:"address,omitempty"`
	Providers []string `json:"providers,omitempty"`
	// State is "OK", "FAILING" or, if no request is refused for it, "FAILING_HARMLESSLY".
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Failures  int       `json:"failures,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Error     string    `json:"error,omitempty"`
	Succeeded time.Time `json:"succeeded,omitzero"`
	Failed    time.Time `json:"failed,omitzero"`
}

func servicesOf(states []mesh.ServiceState) []service {
	services := make([]service, 0, len(states))
	for i := range states {
		s := &states[i]
		one := service{
			Kind: s.Kind.String(), Cluster: s.Cluster, Address: s.Address, Providers: s.Providers, State: "OK",
			Since: s.Since, Failures: s.Failures, Reason: s.Reason, Succeeded: s.Succeeded, Failed: s.Failed,
		}
		switch {
		case s.Failing && s.Harmless:
			one.State = "FAILING_HARMLESSLY"
		case s.Failing:
			one.State = "FAILING"
		}
		if s.Err != nil {
			one.Error = s.Err.Error()
		}
		services = append(services, one)
	}
	return services
}
