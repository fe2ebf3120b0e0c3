package istio

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// checkOutlier makes the checks of Istio's own validation.
func checkOutlier(o *networking.OutlierDetection, a at) {
	if o == nil {
		return
	}
	percent := func(n int32, a at) {
		if n < 0 || n > 100 {
			a.errorf("%d is not in 0..100", n)
		}
	}
	checkDuration(o.Interval, a.field("interval"))
	checkDuration(o.BaseEjectionTime, a.field("baseEjectionTime"))
	percent(o.MaxEjectionPercent, a.field("maxEjectionPercent"))
	percent(o.MinHealthPercent, a.field("minHealthPercent"))
	if !o.SplitExternalLocalOriginErrors && o.ConsecutiveLocalOriginFailures.GetValue() > 0 {
		a.field("consecutiveLocalOriginFailures").errorf("has no effect without splitExternalLocalOriginErrors: set that to true, or remove it")
	}
}

// applyOutlier translates outlierDetection as Istio does for a sidecar: the
// detectors of errors in a row are on at 100 % or off, with a threshold of 0, the
// success rate is off, and hosts are used in spite of their health only if
// minHealthPercent asks for that. A maxEjectionPercent of 0 is Envoy's default.
func applyOutlier(c *clusterv3.Cluster, o *networking.OutlierDetection) {
	if o == nil {
		return
	}
	out := &clusterv3.OutlierDetection{
		EnforcingSuccessRate: wrapperspb.UInt32(0),
		Interval:             o.Interval,
		BaseEjectionTime:     o.BaseEjectionTime,
	}
	if n := o.Consecutive_5XxErrors; n != nil {
		out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = n, enforced(n)
	}
	if n := o.ConsecutiveGatewayErrors; n != nil {
		out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = n, enforced(n)
	}
	if o.MaxEjectionPercent > 0 {
		out.MaxEjectionPercent = wrapperspb.UInt32(uint32(o.MaxEjectionPercent))
	}
	if o.SplitExternalLocalOriginErrors {
		out.SplitExternalLocalOriginErrors = true
		out.EnforcingLocalOriginSuccessRate = wrapperspb.UInt32(0)
		if n := o.ConsecutiveLocalOriginFailures; n.GetValue() > 0 {
			out.ConsecutiveLocalOriginFailure, out.EnforcingConsecutiveLocalOriginFailure = n, wrapperspb.UInt32(100)
		}
	}
	c.OutlierDetection = out
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{
		HealthyPanicThreshold: &typev3.Percent{Value: float64(o.MinHealthPercent)},
	}
}

// enforced is the percentage for a detector with a threshold.
func enforced(threshold *wrapperspb.UInt32Value) *wrapperspb.UInt32Value {
	if threshold.GetValue() == 0 {
		return wrapperspb.UInt32(0)
	}
	return wrapperspb.UInt32(100)
}
