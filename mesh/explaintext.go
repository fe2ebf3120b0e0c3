package mesh

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// String is the explanation for people to read, some lines long.
func (e *Explanation) String() string {
	w := new(writer)
	w.linef("%s %s %s%s", e.Protocol, e.Method, e.Host, e.Path)
	w.field("target", "%s", e.Target)
	verdict := string(e.Verdict)
	if e.Reason != "" {
		verdict += ": " + e.Reason
	}
	w.field("verdict", "%s", verdict)
	e.writeRouting(w)
	for _, f := range e.Filters {
		if f.Enabled {
			w.field("filter", "%q: %s", f.Name, f.Effect)
		} else {
			w.field("filter", "%q is off: %s", f.Name, f.Effect)
		}
	}
	if a := e.Answer; a != nil {
		w.field("answer", "%s", a)
	}
	e.writeChoices(w)
	if e.Cluster != nil {
		e.Cluster.write(w)
	}
	for _, m := range e.Mirrors {
		if m.Missing {
			w.field("not copied", "no route of this table names the cluster %q", m.Cluster)
			continue
		}
		w.field("copied to", "%s, %.4g%%", m.Cluster, m.Percent)
	}
	if s := e.Sent; s != nil {
		w.field("sent as", "%s", s)
	}
	for _, operation := range e.ResponseHeaders {
		w.field("response", "%s", operation)
	}
	if e.Redirects != "" {
		w.field("redirects", "%s", e.Redirects)
	}
	if t := e.Timeouts; t != nil {
		needed := ""
		if t.Needed > 0 {
			needed = fmt.Sprintf(", none begins with less than %v left", t.Needed)
		}
		w.field("timeouts", "call %s, attempt %s, idle attempt %s, connect %s%s",
			t.Call.orNone(), t.Try.orNone(), t.TryIdle.orNone(), t.Connect.orNone(), needed)
	}
	if r := e.Retry; r != nil {
		w.field("retries", "%s", r)
	} else if e.Verdict == VerdictForward || e.Verdict == VerdictNoEndpoint || e.Verdict == VerdictOverflow {
		w.field("retries", "none")
	}
	return w.String()
}

func (e *Explanation) writeRouting(w *writer) {
	switch {
	case e.VirtualHost != nil:
		w.field("virtual host", "%q, by the domain %q", e.VirtualHost.Name, e.VirtualHost.Domain)
	case len(e.Hosts) > 0:
		for _, h := range e.Hosts {
			w.field("not for it", "virtual host %q, for %s", h.Name, strings.Join(h.Domains, ", "))
		}
	}
	for _, m := range e.NotMatched {
		w.field(fmt.Sprintf("not route %d", m.Index), "%q: %s: wants %s, got %s", m.Name, m.Condition, m.Want, m.Got)
	}
	if r := e.Route; r != nil {
		w.field(fmt.Sprintf("route %d", r.Index), "%q: %s", r.Name, r.Match)
	}
}

func (e *Explanation) writeChoices(w *writer) {
	if e.Draw == nil {
		return
	}
	for _, c := range e.Choices {
		mark := ""
		if c.Chosen {
			mark = fmt.Sprintf(" <- drawn by %s: %d of %d", e.Draw.By, e.Draw.Number, e.Draw.Total)
			if e.Draw.By == "session" {
				mark = " <- named by the session"
			}
		}
		w.field("choice", "%s, %.4g%%%s", c.Cluster, c.Percent, mark)
	}
}

func (c *ExplainedCluster) write(w *writer) {
	w.field("cluster", "%s", c.Name)
	if c.Error != "" {
		w.field("", "cannot be used: %s", c.Error)
	}
	if c.Policy == "" {
		return
	}
	policy := c.Policy
	if len(c.HashOf) > 0 {
		policy += " of " + strings.Join(c.HashOf, ", ")
	}
	if c.Protocol != "" {
		policy += ", " + c.Protocol
	}
	w.field("", "%s", policy)
	switch {
	case c.Hash == "determined":
		w.field("", "the hash determines the endpoint")
	case c.Hash != "":
		w.field("", "the endpoint is %s", c.Hash)
	}
	if c.ZoneAware != "" {
		w.field("", "zone aware routing is %s", c.ZoneAware)
	}
	w.settings(c.SlowStart, c.Checks, c.Detectors)
	for _, share := range c.Shares {
		w.field("share", "%s", share)
	}
	if c.Subsetting != "" {
		w.field("subsetting", "%s", c.Subsetting)
	}
	if len(c.Peers) > 0 {
		w.field("", "peers are %s", strings.Join(c.Peers, " or "))
	}
	candidates := 0
	for i := range c.Endpoints {
		if c.Endpoints[i].Candidate {
			candidates++
		}
	}
	if c.Panic != "" {
		w.field("panic", "%s", c.Panic)
	}
	w.field("endpoints", "%d, of which %d can be picked", len(c.Endpoints), candidates)
	for i := range c.Endpoints {
		if c.Endpoints[i].Cluster == "" {
			w.field("", "%s", &c.Endpoints[i])
		}
	}
	switch l := c.Limits; {
	case l == nil:
	case len(c.Leaves) > 0:
		w.field("limits", "%s priority: retries %s", l.Priority, l.Retries)
	default:
		w.field("limits", "%s, retries %s", l, l.Retries)
	}
	if c.Pool != "" {
		w.field("connections", "%s", c.Pool)
	}
	w.state(c.Breaker, c.Drops)
	for i := range c.Leaves {
		c.Leaves[i].write(w, c.Endpoints)
	}
}

// write writes a leaf, with its endpoints among those of the aggregate.
func (l *ExplainedLeaf) write(w *writer, endpoints []ExplainedEndpoint) {
	w.field("leaf", "%s", l.Name)
	if l.Error != "" {
		w.field("", "cannot be used: %s", l.Error)
	}
	if l.Policy == "" {
		return
	}
	w.field("", "%s, %s", l.Policy, l.Protocol)
	if l.ZoneAware != "" {
		w.field("", "zone aware routing is %s", l.ZoneAware)
	}
	w.settings(l.SlowStart, l.Checks, l.Detectors)
	if l.Subsetting != "" {
		w.field("subsetting", "%s", l.Subsetting)
	}
	if l.Panic != "" {
		w.field("panic", "%s", l.Panic)
	}
	for i := range endpoints {
		if endpoints[i].Cluster == l.Name {
			w.field("", "%s", &endpoints[i])
		}
	}
	w.field("limits", "%s", l.Limits)
	if l.Pool != "" {
		w.field("connections", "%s", l.Pool)
	}
	w.state(l.Breaker, l.Drops)
	if l.Refuses != "" {
		w.field("refuses", "%s", l.Refuses)
	}
}

// settings writes what decides which endpoints get how much.
func (w *writer) settings(slowStart, checks, detectors string) {
	if slowStart != "" {
		w.field("", "slow start %s", slowStart)
	}
	if checks != "" {
		w.field("", "checks %s", checks)
	}
	if detectors != "" {
		w.field("", "ejects after %s", detectors)
	}
}

// state writes what keeps calls back.
func (w *writer) state(breaker string, drops []ExplainedDrop) {
	if breaker != "" {
		w.field("breaker", "%s", breaker)
	}
	for _, d := range drops {
		w.field("drops", "%.4g%% for %q", d.Percent, d.Category)
	}
}

// String is the endpoint in a line.
func (e *ExplainedEndpoint) String() string {
	var b strings.Builder
	b.WriteString(e.Address)
	if e.Hostname != "" {
		fmt.Fprintf(&b, " (%s)", e.Hostname)
	}
	fmt.Fprintf(&b, " %s, %s, priority %d, weight %d, %d active", e.Health, e.Security, e.Priority, e.Weight, e.Active)
	if e.Locality != "" {
		b.WriteString(", in " + e.Locality)
	}
	if e.Warmth > 0 {
		fmt.Fprintf(&b, ", %.0f%% of its weight by slow start", e.Warmth)
	}
	switch e.Check {
	case "":
	case "not yet":
		b.WriteString(", not yet checked")
	default:
		b.WriteString(", checked: " + e.Check)
	}
	if e.Ejected != "" {
		b.WriteString(", ejected: " + e.Ejected)
	}
	if e.Unreachable {
		b.WriteString(", unreachable")
	}
	if !e.Candidate {
		b.WriteString(", not picked: " + e.Why)
	}
	return b.String()
}

// String is the answer in words.
func (a *ExplainedAnswer) String() string {
	text := fmt.Sprintf("status %d", a.Status)
	if a.GRPCCode != "" {
		text = "gRPC " + a.GRPCCode
	}
	if a.Location != "" {
		text += " to " + a.Location
	}
	if a.BodyBytes > 0 {
		text += fmt.Sprintf(", %d bytes: %q", a.BodyBytes, a.Body)
	}
	if len(a.Headers) > 0 {
		text += ", with " + strings.Join(a.Headers, ", ")
	}
	return text
}

// String is the request in words.
func (s *ExplainedSent) String() string {
	parts := []string{s.Host + s.Path}
	if s.EndpointHost {
		parts = []string{"the endpoint's host name, " + s.Path}
	}
	unsaid := func(name string) bool {
		return !slices.ContainsFunc(s.Headers, func(operation string) bool {
			_, header, _ := strings.Cut(operation, " ")
			header, _, _ = strings.Cut(header, ":")
			return header == name
		})
	}
	for _, name := range s.Set {
		if unsaid(name) {
			parts = append(parts, "sets "+name)
		}
	}
	for _, name := range s.Removed {
		if unsaid(name) {
			parts = append(parts, "removes "+name)
		}
	}
	return strings.Join(append(parts, s.Headers...), ", ")
}

// String is the policy in words.
func (r *ExplainedRetry) String() string {
	if r.Max == 0 {
		return "none, not hedged: " + r.NotHedged
	}
	on := strings.Split(r.On, ",")
	if len(r.Statuses) == 0 { // then the condition never holds
		on = slices.DeleteFunc(on, func(c string) bool { return c == "retriable-status-codes" })
	}
	text := fmt.Sprintf("%d, on %s", r.Max, strings.Join(on, ", "))
	if len(r.Statuses) > 0 {
		text += fmt.Sprintf(" (statuses %s)", strings.Trim(fmt.Sprint(r.Statuses), "[]"))
	}
	if len(r.Headers) > 0 {
		text += fmt.Sprintf(" (headers %s)", strings.Join(r.Headers, " "))
	}
	text += fmt.Sprintf(", after %v to %v", r.BackoffBase, r.BackoffMax)
	if len(r.RateLimited) > 0 {
		text += " or as the response says in " + strings.Join(r.RateLimited, ", ")
	}
	if r.OtherEndpoints {
		text += ", each on another endpoint"
	}
	if len(r.Omitted) > 0 {
		text += ", not on those with " + strings.Join(r.Omitted, ", ")
	}
	switch r.OtherPriorities {
	case 0:
	case 1:
		text += ", each in another priority"
	default:
		text += fmt.Sprintf(", in another priority after each %d attempts", r.OtherPriorities)
	}
	if r.Hedge != "" {
		text += ", hedged " + r.Hedge
	}
	if r.NotHedged != "" {
		text += ", not hedged: " + r.NotHedged
	}
	return text
}

// String is the limits but that of retries.
func (l *ExplainedLimits) String() string {
	return fmt.Sprintf("%s priority: connections %s, pending %s, requests %s", l.Priority, l.Connections, l.Pending, l.Requests)
}

// String is "3/1024".
func (l ExplainedLimit) String() string {
	switch {
	case l.Budget != "":
		return fmt.Sprintf("%d/%s", l.Used, l.Budget)
	case l.Max == math.MaxUint32:
		return fmt.Sprintf("%d/unlimited", l.Used)
	}
	return fmt.Sprintf("%d/%d", l.Used, l.Max)
}

func (d ExplainedDuration) orNone() string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

// writer writes lines with names in a column.
type writer struct{ strings.Builder }

func (w *writer) linef(format string, args ...any) {
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

func (w *writer) field(name, format string, args ...any) {
	w.linef("  %-13s "+format, append([]any{name}, args...)...)
}
