// Package orca reads the load reports that endpoints send with their responses
// (ORCA, the Open Request Cost Aggregation of xDS).
package orca

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inboardmesh/inboard/balancer"
)

// The headers, or trailers, that carry a report. Names are lower case.
const (
	// Header has a report in one of three forms: "TEXT cpu_utilization=0.3, ...",
	// "JSON {...}" or "BIN <base64>". Without one of these words it is text.
	Header = "endpoint-load-metrics"
	// HeaderBin has a report as protobuf: in HTTP in base64.
	HeaderBin = "endpoint-load-metrics-bin"
)

// maxReport bounds what is read of a report: it comes from a peer.
const maxReport = 16 << 10

// Find reads the report of a response, given how to read its headers by their
// lower-case names. raw says that HeaderBin is not in base64, as in gRPC's
// metadata. found is false if there is none.
func Find(get func(name string) string, raw bool) (r balancer.LoadReport, found bool, err error) {
	if text := get(HeaderBin); text != "" {
		if raw {
			r, err = Decode([]byte(text))
		} else {
			r, err = decodeBase64(text)
		}
		return r, true, err
	}
	text := get(Header)
	if text == "" {
		return r, false, nil
	}
	r, err = Parse(text)
	return r, true, err
}

// Parse reads a report in the form of Header.
func Parse(text string) (balancer.LoadReport, error) {
	if len(text) > maxReport {
		return balancer.LoadReport{}, fmt.Errorf("load report of %d bytes: at most %d are read", len(text), maxReport)
	}
	form, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch form {
	case "BIN":
		return decodeBase64(strings.TrimSpace(rest))
	case "JSON":
		return parseJSON(rest)
	case "TEXT":
		return parseText(rest)
	}
	return parseText(text)
}

func decodeBase64(text string) (balancer.LoadReport, error) {
	if len(text) > maxReport {
		return balancer.LoadReport{}, fmt.Errorf("load report of %d bytes: at most %d are read", len(text), maxReport)
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return balancer.LoadReport{}, fmt.Errorf("load report: %w", err)
	}
	return Decode(b)
}

// set stores a value by its field's name, and reports false for an unknown name.
func set(r *balancer.LoadReport, name string, v float64) bool {
	switch name {
	case "cpu_utilization":
		r.CPU = v
	case "mem_utilization":
		r.Memory = v
	case "application_utilization":
		r.Application = v
	case "rps_fractional", "rps":
		r.QPS = v
	case "eps":
		r.EPS = v
	default:
		if key, ok := strings.CutPrefix(name, "named_metrics."); ok {
			put(&r.Named, key, v)
			return true
		}
		if key, ok := strings.CutPrefix(name, "utilization."); ok {
			put(&r.Utilization, key, v)
			return true
		}
		return strings.HasPrefix(name, "request_cost.")
	}
	return true
}

func put(m *map[string]float64, key string, v float64) {
	if *m == nil {
		*m = make(map[string]float64)
	}
	(*m)[key] = v
}

// finite refuses what is no measure.
func finite(name string, v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("load report: %s is %v", name, v)
	}
	return nil
}

func parseText(text string) (r balancer.LoadReport, err error) {
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if name = strings.TrimSpace(name); !ok {
			name, value, ok = strings.Cut(name, ":") // Envoy accepts both
		}
		if !ok {
			return balancer.LoadReport{}, fmt.Errorf("load report: %q is not name=value", pair)
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err == nil {
			err = finite(name, v)
		}
		if err != nil {
			return balancer.LoadReport{}, fmt.Errorf("load report: %s: %w", name, err)
		}
		if !set(&r, strings.TrimSpace(name), v) {
			return balancer.LoadReport{}, fmt.Errorf("load report: %q is unknown", name)
		}
	}
	return r, nil
}

func parseJSON(text string) (r balancer.LoadReport, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return r, fmt.Errorf("load report: %w", err)
	}
	for name, raw := range fields {
		switch name {
		case "named_metrics", "utilization", "request_cost":
			var values map[string]float64
			if err := json.Unmarshal(raw, &values); err != nil {
				return balancer.LoadReport{}, fmt.Errorf("load report: %s: %w", name, err)
			}
			for key, v := range values {
				set(&r, name+"."+key, v)
			}
			continue
		}
		var v float64
		if err := json.Unmarshal(raw, &v); err != nil {
			return balancer.LoadReport{}, fmt.Errorf("load report: %s: %w", name, err)
		}
		if !set(&r, name, v) {
			return balancer.LoadReport{}, fmt.Errorf("load report: %q is unknown", name)
		}
	}
	return r, nil
}

// The fields of xds.data.orca.v3.OrcaLoadReport.
const (
	fieldCPU         protowire.Number = 1
	fieldMemory      protowire.Number = 2
	fieldRPS         protowire.Number = 3 // whole requests, superseded by fieldQPS
	fieldUtilization protowire.Number = 5
	fieldQPS         protowire.Number = 6
	fieldEPS         protowire.Number = 7
	fieldNamed       protowire.Number = 8
	fieldApplication protowire.Number = 9
)

// names of the fields that are a double, and of the maps.
var (
	doubles = map[protowire.Number]string{
		fieldCPU: "cpu_utilization", fieldMemory: "mem_utilization", fieldQPS: "rps_fractional",
		fieldEPS: "eps", fieldApplication: "application_utilization",
	}
	maps = map[protowire.Number]string{fieldUtilization: "utilization.", fieldNamed: "named_metrics."}
)

var errWire = errors.New("load report: not a valid OrcaLoadReport")

// Decode reads an xds.data.orca.v3.OrcaLoadReport.
func Decode(b []byte) (r balancer.LoadReport, err error) {
	if len(b) > maxReport {
		return r, fmt.Errorf("load report of %d bytes: at most %d are read", len(b), maxReport)
	}
	err = each(b, func(n protowire.Number, t protowire.Type, v value) error {
		switch name, isDouble := doubles[n]; {
		case isDouble && t == protowire.Fixed64Type:
			set(&r, name, v.double())
			return finite(name, v.double())
		case n == fieldRPS && t == protowire.VarintType && r.QPS == 0:
			r.QPS = float64(v.number)
		case maps[n] != "" && t == protowire.BytesType:
			var key string
			var metric float64
			err := each(v.bytes, func(n protowire.Number, t protowire.Type, v value) error {
				switch {
				case n == 1 && t == protowire.BytesType:
					key = string(v.bytes)
				case n == 2 && t == protowire.Fixed64Type:
					metric = v.double()
				}
				return nil
			})
			if err != nil {
				return err
			}
			set(&r, maps[n]+key, metric)
			return finite(maps[n]+key, metric)
		}
		return nil
	})
	if err != nil {
		return balancer.LoadReport{}, err
	}
	return r, nil
}

// value is what a field holds, in the form of its type.
type value struct {
	number uint64
	bytes  []byte
}

func (v value) double() float64 { return math.Float64frombits(v.number) }

// each calls f for every field of a message.
func each(b []byte, f func(protowire.Number, protowire.Type, value) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var v value
		switch kind {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if err := f(number, kind, v); err != nil {
			return err
		}
	}
	return nil
}
