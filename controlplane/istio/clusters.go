package istio

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// checkClusters warns of routes to clusters that some of the nodes that get the
// route do not see: of a service that is not exported to them, or of a subset
// that their DestinationRule does not have.
func (r *registry) checkClusters(c *Config) {
	for _, name := range sortedKeys(c.routes) {
		tables := c.routes[name]
		checkTable(c, tables, elsewhere, tables.elsewhere)
		for _, own := range tables.own {
			checkTable(c, tables, own.namespace, own.answer)
		}
	}
}

func checkTable(c *Config, tables byNamespace[*routeTable], namespace string, t *routeTable) {
	if t == nil {
		return
	}
	for _, choice := range t.choices {
		for _, r := range choice {
			if r.target.obj == nil {
				continue
			}
			for _, cluster := range clustersOf(r.route) {
				for _, who := range blind(c, tables, namespace, t, r.from, cluster) {
					r.target.warnf(lintInvisibleDestination, "%s is not visible to clients in %s, who get this route: their calls fail", describeCluster(cluster), who)
				}
			}
		}
	}
}

// blind are the namespaces that get a route and do not see its cluster.
func blind(c *Config, tables byNamespace[*routeTable], namespace string, t *routeTable, from source, cluster string) []string {
	entry := c.clusters[cluster]
	if from.namespace != "" {
		if tables.in(from.namespace) != t || entry.in(from.namespace) != nil {
			return nil
		}
		return []string{"namespace \"" + from.namespace + "\""}
	}
	var who []string
	if entry.in(namespace) == nil {
		if namespace != elsewhere {
			return []string{"namespace \"" + namespace + "\""}
		}
		who = append(who, "other namespaces")
	} else if namespace == elsewhere {
		for _, own := range entry.own {
			if own.answer == nil && tables.in(own.namespace) == t {
				who = append(who, "namespace \""+own.namespace+"\"")
			}
		}
	}
	return who
}

// clustersOf are the clusters that a route names.
func clustersOf(route *routev3.Route) []string {
	action := route.GetRoute()
	var clusters []string
	if cluster := action.GetCluster(); cluster != "" {
		clusters = append(clusters, cluster)
	}
	for _, weighted := range action.GetWeightedClusters().GetClusters() {
		clusters = append(clusters, weighted.GetName())
	}
	return clusters
}

// describeCluster is a cluster in the words of the documents.
func describeCluster(name string) string {
	parts := strings.Split(name, "|") // "outbound", port, subset, host
	if parts[2] != "" {
		return "subset \"" + parts[2] + "\" of \"" + parts[3] + "\""
	}
	return "\"" + parts[3] + "\""
}
