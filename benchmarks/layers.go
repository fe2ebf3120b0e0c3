package main

import (
	"fmt"
	"io"
)

// A layer is what a mesh has more than that of the layer above.
type layer struct {
	name, policy string
	telemetry    kind // a suffix
}

var layers = []layer{
	{name: "mutual TLS and discovery, no policy", policy: documents()},
	{name: "a route of two with a timeout", policy: documents(virtualService(timeout))},
	{name: "retries", policy: documents(virtualService(timeout, retries))},
	{name: "limits", policy: documents(destinationRule("", limits), virtualService(timeout, retries))},
	{name: "outlier detection, least request", policy: documents(destinationRule("", limits, outlier, least), virtualService(timeout, retries))},
	{name: "an error-rate breaker", policy: everything},
	{name: "authorization", policy: everything + "---" + authorization},
	{name: "metrics", policy: everything + "---" + authorization, telemetry: metricsOn},
	{name: "traces of 1 %", policy: everything + "---" + authorization, telemetry: traces1},
	{name: "traces of 100 %", policy: everything + "---" + authorization, telemetry: traces100},
}

// layerCases are the layers as cases, for HTTP/1.1 and for gRPC, each with its baseline.
func layerCases() []benchCase {
	var list []benchCase
	for _, protocol := range []struct {
		name, baseline string
		bare, mesh     kind
	}{{"HTTP/1.1", baseHTTP, httpTLS, httpMesh}, {"gRPC", baseGRPC, grpcTLS, grpcMesh}} {
		list = append(list, benchCase{name: protocol.baseline, client: protocol.bare, server: protocol.bare})
		above := protocol.baseline
		for _, l := range layers {
			c := benchCase{
				name: protocol.name + ": " + l.name, baseline: protocol.baseline, above: above, policy: l.policy,
				client: protocol.mesh + l.telemetry, server: protocol.mesh + l.telemetry,
			}
			list = append(list, c)
			above = c.name
		}
	}
	return list
}

// printLayers writes what each layer adds to the one above, paired within each round.
func (t *table) printLayers(w io.Writer) {
	for _, callers := range t.settings.callers {
		fmt.Fprintf(w, "\n### Layers, %d callers\n\n", callers)
		fmt.Fprintln(w, "| | CPU us a call | more than above | client's part of that | allocations client + server | CPU, ratio | failed |")
		fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
		for _, c := range chosen(t.settings) {
			t.layerRow(w, c, callers)
		}
	}
}

func (t *table) layerRow(w io.Writer, c *benchCase, callers int) {
	column := func(format string, value func(*measurement) float64) string {
		return t.median(c, callers, format, func(m, _ *measurement) float64 { return value(m) })
	}
	more, clients, ratio := "", "", "1"
	if c.baseline != "" {
		more = t.paired(c, c.above, callers, "%+.1f", func(m, above *measurement) float64 { return m.cpuPerCall() - above.cpuPerCall() })
		clients = t.paired(c, c.above, callers, "%+.1f", func(m, above *measurement) float64 {
			return m.clientCPUPerCall() - above.clientCPUPerCall()
		})
		ratio = t.median(c, callers, "%.2f", func(m, base *measurement) float64 { return m.cpuPerCall() / base.cpuPerCall() })
	}
	fmt.Fprintf(w, "| %s | %s | %s | %s | %s + %s | %s | %d |\n", c.name, column("%.1f", (*measurement).cpuPerCall), more, clients,
		column("%.0f", func(m *measurement) float64 { return m.perCall(float64(m.clientAllocs)) }),
		column("%.0f", func(m *measurement) float64 { return m.perCall(float64(m.serverAllocs)) }),
		ratio, t.failed(c, callers))
}
