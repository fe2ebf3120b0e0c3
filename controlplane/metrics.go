package controlplane

import (
	"bytes"
	"maps"
	"net/http"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// metrics writes the [Status] for Prometheus. There are no names of clients in it:
// their number has no bound.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultAcceptedFormats()...)
	var body bytes.Buffer
	encoder := expfmt.NewEncoder(&body, format)
	status := s.Status()
	for _, family := range status.families() {
		if err := encoder.Encode(family); err != nil {
			http.Error(w, "metrics cannot be encoded", http.StatusInternalServerError)
			return
		}
	}
	if closer, ok := encoder.(expfmt.Closer); ok {
		if err := closer.Close(); err != nil {
			http.Error(w, "metrics cannot be encoded", http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", string(format))
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body.Bytes()) // a caller that went away needs no answer
}

// families are the metrics of a status, sorted by name.
func (s *Status) families() []*dto.MetricFamily {
	connected := map[string]float64{"delta": 0, "state-of-the-world": 0}
	rejecting := make(map[string]float64)
	subscribed := make(map[string]float64)
	for i := range s.Clients {
		c := &s.Clients[i]
		connected[c.Protocol]++
		for typeURL := range c.Types {
			name := typeName(typeURL)
			subscribed[name] += float64(c.Types[typeURL].Subscribed)
			rejecting[name] += 0
			if nack := c.Types[typeURL].NACK; nack != nil && nack.Active {
				rejecting[name]++
			}
		}
	}
	good := 1.0
	if len(s.Config.Problems) > 0 {
		good = 0
	}
	const gauge, counter = dto.MetricType_GAUGE, dto.MetricType_COUNTER
	return []*dto.MetricFamily{
		family(gauge, "inboard_control_plane_clients", "Streams that are open.", "protocol", connected),
		family(gauge, "inboard_control_plane_clients_rejecting", "Streams whose client has rejected the last response of a type.", "type", rejecting),
		family(gauge, "inboard_control_plane_config_good", "Whether the last change of the configuration is served: 0 or 1.", "", map[string]float64{"": good}),
		family(gauge, "inboard_control_plane_config_loaded_timestamp_seconds", "When what is served was loaded.", "",
			map[string]float64{"": float64(s.Config.Loaded.UnixMilli()) / 1000}),
		family(gauge, "inboard_control_plane_config_problems", "Problems of the last change of the configuration.", "", map[string]float64{"": float64(len(s.Config.Problems))}),
		family(gauge, "inboard_control_plane_config_warnings", "Warnings about what is served.", "", map[string]float64{"": float64(len(s.Config.Warnings))}),
		family(gauge, "inboard_control_plane_connections", "Connections that are open.", "", map[string]float64{"": float64(s.Connections)}),
		family(counter, "inboard_control_plane_connections_idle_total", "Connections that were closed because they had no call.", "", map[string]float64{"": float64(s.Totals.ConnectionsIdle)}),
		family(gauge, "inboard_control_plane_connections_limit", "Connections that may be open at once.", "", map[string]float64{"": float64(s.Limits.Connections)}),
		family(counter, "inboard_control_plane_connections_refused_total", "Connections that were refused because there were too many.", "", map[string]float64{"": float64(s.Totals.ConnectionsRefused)}),
		family(counter, "inboard_control_plane_connections_total", "Connections that were taken in.", "", map[string]float64{"": float64(s.Totals.Connections)}),
		family(counter, "inboard_control_plane_nacks_total", "Responses that clients rejected.", "", map[string]float64{"": float64(s.Totals.NACKs)}),
		family(counter, "inboard_control_plane_resources_sent_total", "Resources that were sent.", "", map[string]float64{"": float64(s.Totals.Resources)}),
		family(gauge, "inboard_control_plane_streams_limit", "Streams that may be open at once.", "", map[string]float64{"": float64(s.Limits.Streams)}),
		family(counter, "inboard_control_plane_streams_refused_total", "Streams that were refused because there were too many.", "", map[string]float64{"": float64(s.Totals.Refused)}),
		family(counter, "inboard_control_plane_streams_silent_total", "Streams that were ended because their clients sent no request.", "", map[string]float64{"": float64(s.Totals.Silent)}),
		family(counter, "inboard_control_plane_streams_stalled_total", "Streams that were ended because their clients did not read.", "", map[string]float64{"": float64(s.Totals.Stalled)}),
		family(counter, "inboard_control_plane_streams_total", "Streams that were opened.", "", map[string]float64{"": float64(s.Totals.Streams)}),
		family(gauge, "inboard_control_plane_subscribed", "Names that clients are subscribed to.", "type", subscribed),
	}
}

// typeName is the short name of a type that is served. What clients make up is one.
func typeName(typeURL string) string {
	if slices.Contains(pushOrder, typeURL) {
		return shortType(typeURL)
	}
	return "other"
}

// family is a metric with one label, or none for "".
func family(kind dto.MetricType, name, help, label string, values map[string]float64) *dto.MetricFamily {
	f := &dto.MetricFamily{Name: new(name), Help: new(help), Type: kind.Enum()}
	for _, key := range sortedKeys(values) {
		m := new(dto.Metric)
		if label != "" {
			m.Label = []*dto.LabelPair{{Name: new(label), Value: new(key)}}
		}
		switch kind {
		case dto.MetricType_COUNTER:
			m.Counter = &dto.Counter{Value: new(values[key])}
		default:
			m.Gauge = &dto.Gauge{Value: new(values[key])}
		}
		f.Metric = append(f.Metric, m)
	}
	return f
}

func sortedKeys(values map[string]float64) []string { return slices.Sorted(maps.Keys(values)) }
