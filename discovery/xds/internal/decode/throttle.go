package decode

import (
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/inboardmesh/inboard/retry"
)

// throttleKey is where a cluster's metadata configures the throttle of retries.
// Its fields are those of retryThrottling in a gRPC service config.
const throttleKey = "inboard.retry_throttle"

// throttleSettings decodes filter_metadata["inboard.retry_throttle"]; nil
// without it. Both of its fields must be there.
func (d *decoder) throttleSettings(at path, m *corev3.Metadata) *retry.ThrottleSettings {
	config, ok := m.GetFilterMetadata()[throttleKey]
	if !ok {
		return nil
	}
	at = at.entry("filter_metadata", throttleKey)
	settings := &retry.ThrottleSettings{}
	for _, name := range slices.Sorted(maps.Keys(config.GetFields())) {
		in, value := at.field(name), config.GetFields()[name]
		switch name {
		case "maxTokens":
			settings.MaxTokens = d.ratio(in, value, 1)
		case "tokenRatio":
			settings.TokenRatio = d.ratio(in, value, 1)
		default:
			d.refusef(in, "unknown: use maxTokens and tokenRatio")
		}
	}
	if err := settings.Validate(); err != nil {
		d.refusef(at, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return settings
}
