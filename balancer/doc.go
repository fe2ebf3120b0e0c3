// Package balancer chooses the endpoint for each attempt of a call.
//
// A [Set] holds the endpoints of one cluster. [Set.Update] gives it a
// configuration: localities with priorities and weights, endpoints with weights
// and health. [Set.Pick] chooses a [Host] in constant time, without a lock and
// without an allocation, whatever the number of endpoints:
//
//	set := balancer.NewSet(config, nil)
//	set.Update(config, localities)
//	host, err := set.Pick(balancer.PickInfo{Avoid: tried})
//	if err != nil {
//		return err
//	}
//	host.Begin()
//	defer host.End()
//	send(host.Endpoint().Address)
//
// A pick goes through three stages, which are Envoy's. First, a priority is
// chosen at random, by how many of its endpoints are healthy: the first priority
// gets everything until fewer than about 72 % are (100 % divided by the
// overprovisioning factor of 1.4), and what it cannot bear goes to the next. If
// all together do not suffice, degraded endpoints are used, and a priority with
// fewer healthy ones than the panic threshold uses all that it has. Second, with
// [Config.LocalityWeighted], a locality is chosen by its weight and health. Third,
// the [Policy] chooses a host. The zero [Config] is round robin over the healthy
// endpoints.
//
// With a policy of outlier detection ([Set.SetOutlier]) a host that fails too much
// is left out for a while. It learns from [Host.Report] how attempts end, and from
// [Set.Sweep], which somebody has to call at the policy's interval, when it is time
// to compare hosts and to let them return.
//
// Hosts keep what is known about them from update to update: the requests in
// flight, whether they can be reached, whether they are ejected, and what the owner
// attached.
package balancer
