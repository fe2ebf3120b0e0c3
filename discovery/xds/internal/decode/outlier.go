package decode

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
)

var outlierFields = []messageFields{
	{
		message: (*clusterv3.OutlierDetection)(nil),
		read: "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx " +
			"enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume " +
			"success_rate_stdev_factor consecutive_gateway_failure enforcing_consecutive_gateway_failure " +
			"split_external_local_origin_errors consecutive_local_origin_failure " +
			"enforcing_consecutive_local_origin_failure enforcing_local_origin_success_rate " +
			"failure_percentage_threshold enforcing_failure_percentage " +
			"enforcing_failure_percentage_local_origin failure_percentage_minimum_hosts " +
			"failure_percentage_request_volume max_ejection_time max_ejection_time_jitter always_eject_one_host " +
			"successful_active_health_check_uneject_host",
		zero:    "detect_degraded_hosts",
		instead: map[string]string{"monitors": "no monitor is known: use the detectors of this message"},
	},
}

// shortestInterval is the least interval of sweeps and of health checks: Envoy counts in
// milliseconds.
const shortestInterval = time.Millisecond

// outlierDetection decodes a cluster's outlier_detection; nil without it. Envoy's
// constraints have checked percentages and that times are positive.
func (d *decoder) outlierDetection(at path, m *clusterv3.OutlierDetection) *balancer.OutlierConfig {
	if m == nil {
		return nil
	}
	c := balancer.DefaultOutlierConfig()
	d.ejectionTimes(at, m, &c)
	c.AlwaysEjectOneHost = m.GetAlwaysEjectOneHost().GetValue()
	if u := m.GetSuccessfulActiveHealthCheckUnejectHost(); u != nil {
		c.UnejectOnCheck = u.GetValue()
	}
	c.SplitLocalOrigin = m.GetSplitExternalLocalOriginErrors()
	for _, field := range []struct {
		value *wrapperspb.UInt32Value
		to    *uint32
	}{
		{m.GetMaxEjectionPercent(), &c.MaxEjectionPercent},
		{m.GetConsecutive_5Xx(), &c.Consecutive5xx.Threshold},
		{m.GetEnforcingConsecutive_5Xx(), &c.Consecutive5xx.Enforcing},
		{m.GetConsecutiveGatewayFailure(), &c.ConsecutiveGateway.Threshold},
		{m.GetEnforcingConsecutiveGatewayFailure(), &c.ConsecutiveGateway.Enforcing},
		{m.GetConsecutiveLocalOriginFailure(), &c.ConsecutiveLocal.Threshold},
		{m.GetEnforcingConsecutiveLocalOriginFailure(), &c.ConsecutiveLocal.Enforcing},
		{m.GetSuccessRateMinimumHosts(), &c.SuccessRate.MinimumHosts},
		{m.GetSuccessRateRequestVolume(), &c.SuccessRate.RequestVolume},
		{m.GetSuccessRateStdevFactor(), &c.SuccessRate.StdevFactor},
		{m.GetEnforcingSuccessRate(), &c.SuccessRate.Enforcing},
		{m.GetEnforcingLocalOriginSuccessRate(), &c.SuccessRate.EnforcingLocal},
		{m.GetFailurePercentageThreshold(), &c.FailurePercentage.Threshold},
		{m.GetFailurePercentageMinimumHosts(), &c.FailurePercentage.MinimumHosts},
		{m.GetFailurePercentageRequestVolume(), &c.FailurePercentage.RequestVolume},
		{m.GetEnforcingFailurePercentage(), &c.FailurePercentage.Enforcing},
		{m.GetEnforcingFailurePercentageLocalOrigin(), &c.FailurePercentage.EnforcingLocal},
	} {
		if field.value != nil {
			*field.to = field.value.GetValue()
		}
	}
	return &c
}

// ejectionTimes decodes the durations of an OutlierDetection.
func (d *decoder) ejectionTimes(at path, m *clusterv3.OutlierDetection, c *balancer.OutlierConfig) {
	for _, field := range []struct {
		name  string
		value *durationpb.Duration
		to    *time.Duration
	}{
		{"interval", m.GetInterval(), &c.Interval},
		{"base_ejection_time", m.GetBaseEjectionTime(), &c.BaseEjectionTime},
		{"max_ejection_time", m.GetMaxEjectionTime(), &c.MaxEjectionTime},
		{"max_ejection_time_jitter", m.GetMaxEjectionTimeJitter(), &c.EjectionJitter},
	} {
		if field.value != nil {
			*field.to = d.duration(at.field(field.name), field.value)
		}
	}
	if c.Interval > 0 && c.Interval < shortestInterval {
		d.refusef(at.field("interval"), "must be at least %v: is %v", shortestInterval, c.Interval)
	}
	// By default, and by gRFC A50 always. Envoy refuses less.
	c.MaxEjectionTime = max(c.MaxEjectionTime, c.BaseEjectionTime)
}
