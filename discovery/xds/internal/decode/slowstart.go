package decode

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	cswrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/balancer"
)

var slowStartFields = []messageFields{
	{message: (*clusterv3.Cluster_SlowStartConfig)(nil), read: "slow_start_window aggression min_weight_percent"},
	{message: (*commonv3.SlowStartConfig)(nil), read: "slow_start_window aggression min_weight_percent"},
	{
		message: (*cswrrv3.ClientSideWeightedRoundRobin)(nil),
		read: "enable_oob_load_report oob_reporting_period blackout_period weight_expiration_period weight_update_period " +
			"error_utilization_penalty metric_names_for_computing_utilization slow_start_config",
		instead: map[string]string{"oob_reporting_config": "reports come over the connections that calls go over"},
	},
}

// defaultMinWeight is Envoy's min_weight_percent.
const defaultMinWeight = 10

// slowStart is what both configurations of it have.
type slowStart interface {
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
}

// slowStart decodes it. present is false if there is none.
func (d *decoder) slowStart(at path, m slowStart, present bool) balancer.SlowStart {
	if !present {
		return balancer.SlowStart{}
	}
	s := balancer.SlowStart{
		Window:           d.duration(at.field("slow_start_window"), m.GetSlowStartWindow()),
		MinWeightPercent: d.percent(at.field("min_weight_percent"), m.GetMinWeightPercent(), defaultMinWeight),
	}
	if v := m.GetAggression(); v != nil {
		s.Aggression = v.GetDefaultValue()
		if !(s.Aggression > 0) || math.IsInf(s.Aggression, 1) {
			d.refusef(at.field("aggression").field("default_value"), "must be more than 0: is %v", s.Aggression)
		}
	}
	return s
}

// clientWeighted decodes the extension.
func (d *decoder) clientWeighted(at path, m *cswrrv3.ClientSideWeightedRoundRobin) balancer.Config {
	config := balancer.Config{
		Policy:    balancer.ClientWeighted,
		SlowStart: d.slowStart(at.field("slow_start_config"), m.GetSlowStartConfig(), m.GetSlowStartConfig() != nil),
	}
	c := &config.ClientWeighted
	c.OutOfBand = m.GetEnableOobLoadReport().GetValue()
	c.ReportPeriod = d.duration(at.field("oob_reporting_period"), m.GetOobReportingPeriod())
	c.Blackout = d.zeroIsNone(at.field("blackout_period"), m.GetBlackoutPeriod())
	c.Expiration = d.zeroIsNone(at.field("weight_expiration_period"), m.GetWeightExpirationPeriod())
	c.UpdatePeriod = d.duration(at.field("weight_update_period"), m.GetWeightUpdatePeriod())
	c.ErrorPenalty = 1
	if v := m.GetErrorUtilizationPenalty(); v != nil {
		c.ErrorPenalty = float64(v.GetValue())
		if !(c.ErrorPenalty >= 0) || math.IsInf(c.ErrorPenalty, 1) {
			d.refusef(at.field("error_utilization_penalty"), "must be 0 or more: is %v", c.ErrorPenalty)
		}
	}
	c.Metrics = m.GetMetricNamesForComputingUtilization()
	return config
}

// zeroIsNone decodes a duration that is less than 0 in the model if it is
// configured to be 0, and 0 if it is not configured.
func (d *decoder) zeroIsNone(at path, v *durationpb.Duration) time.Duration {
	if v == nil {
		return 0
	}
	if t := d.duration(at, v); t > 0 {
		return t
	}
	return -1
}
