package offline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/mesh"
)

// addSettings adds what decides between the endpoints of a cluster, and what keeps calls
// back.
func (f *facts) addSettings(prefix string, c *mesh.ExplainedCluster) {
	settings := settingsOf(c.ZoneAware, c.SlowStart, c.Checks, c.Detectors, c.Subsetting, c.Breaker, c.PanicThreshold, c.Drops)
	limits := []string{limitsOf(c.Limits)}
	for i := range c.Leaves {
		l := &c.Leaves[i]
		of := settingsOf(l.ZoneAware, l.SlowStart, l.Checks, l.Detectors, l.Subsetting, l.Breaker, l.PanicThreshold, l.Drops)
		settings = append(settings, fmt.Sprintf("leaf %s: %s, %s, %s", l.Name, l.Policy, l.Protocol, strings.Join(of, ", ")))
		limits = append(limits, fmt.Sprintf("leaf %s: %s", l.Name, limitsOf(l.Limits)))
	}
	f.add(prefix+"settings", strings.Join(settings, ", "))
	f.add(prefix+"limits", strings.Join(limits, "; "))
	f.add(prefix+"shares", strings.Join(c.Shares, "; "))
	f.add(prefix+"priorities", prioritiesOf(c.Endpoints))
}

func settingsOf(zoneAware, slowStart, checks, detectors, subsetting, breaker string, panicThreshold float64, drops []mesh.ExplainedDrop) []string {
	var all []string
	for _, one := range []struct{ what, value string }{
		{"zone aware routing is ", zoneAware}, {"slow start ", slowStart}, {"checks ", checks}, {"ejects after ", detectors},
		{"", subsetting}, {"an error-rate breaker is ", breaker},
	} {
		if one.value != "" {
			all = append(all, one.what+one.value)
		}
	}
	if panicThreshold > 0 {
		all = append(all, fmt.Sprintf("panic below %.4g%%", panicThreshold))
	}
	for _, d := range drops {
		all = append(all, fmt.Sprintf("drops %.4g%% for %q", d.Percent, d.Category))
	}
	return all
}

func limitsOf(l *mesh.ExplainedLimits) string {
	if l == nil {
		return none
	}
	return fmt.Sprintf("%s, retries %s", l, l.Retries)
}

// prioritiesOf says which localities are of which priority, if there are several.
func prioritiesOf(endpoints []mesh.ExplainedEndpoint) string {
	var all []string
	several := false
	for i := range endpoints {
		e := &endpoints[i]
		several = several || e.Priority != endpoints[0].Priority
		all = append(all, strings.TrimSpace(fmt.Sprintf("%d %s %s", e.Priority, e.Locality, e.Cluster)))
	}
	if !several {
		return ""
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}
