package decode

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// violation is an error of protoc-gen-validate.
type violation interface {
	Field() string
	Reason() string
	Cause() error
	Key() bool
}

// violationList is several of them.
type violationList interface {
	AllErrors() []error
}

// constraints reports what breaks Envoy's own constraints.
func (d *decoder) constraints(at path, m proto.Message) {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok {
		return
	}
	if err := v.ValidateAll(); err != nil {
		d.violations(at, m.ProtoReflect().Descriptor(), err)
	}
}

// violations reports err under the names of the protobuf fields.
func (d *decoder) violations(at path, in protoreflect.MessageDescriptor, err error) {
	if list, ok := err.(violationList); ok {
		for _, err := range list.AllErrors() {
			d.violations(at, in, err)
		}
		return
	}
	v, ok := err.(violation)
	if !ok {
		d.refusef(at, "%v", err)
		return
	}
	goName, key, indexed := strings.Cut(strings.TrimSuffix(v.Field(), "]"), "[")
	fd := fieldByGoName(in, goName)
	if fd == nil {
		d.refusef(at.field(oneofByGoName(in, goName)), "%s", v.Reason())
		return
	}
	if waived(fd) {
		return
	}
	place := at.field(string(fd.Name()))
	if indexed {
		place.key, place.kind = key, mapEntry
		if fd.IsList() {
			place.index, place.kind = atoi(key), listElement
		}
	}
	inner := fd.Message()
	if fd.IsMap() {
		inner = fd.MapValue().Message()
	}
	if v.Cause() != nil && inner != nil {
		d.violations(place, inner, v.Cause())
		return
	}
	d.refusef(place, "%s", v.Reason())
}

// waived tells whether Envoy's constraint on a field is not ours.
func waived(fd protoreflect.FieldDescriptor) bool {
	switch fd.FullName() {
	case "envoy.config.endpoint.v3.LocalityLbEndpoints.load_balancing_weight":
		// gRFC A27: a locality with weight 0 is skipped, not an error.
		return true
	case "envoy.config.route.v3.VirtualHost.name",
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.stat_prefix":
		// They only name metrics, and istiod leaves them out for proxyless
		// clients.
		return true
	case "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext.validation_context_sds_secret_config":
		// gRFC A29: a certificate provider instance takes its place.
		return true
	}
	return false
}

// fieldByGoName finds the field that protoc-gen-validate calls goName.
func fieldByGoName(in protoreflect.MessageDescriptor, goName string) protoreflect.FieldDescriptor {
	fields := in.Fields()
	for i := range fields.Len() {
		if sameName(string(fields.Get(i).Name()), goName) {
			return fields.Get(i)
		}
	}
	return nil
}

// oneofByGoName finds the oneof that protoc-gen-validate calls goName; a name
// that is not found is returned as it is.
func oneofByGoName(in protoreflect.MessageDescriptor, goName string) string {
	oneofs := in.Oneofs()
	for i := range oneofs.Len() {
		if name := string(oneofs.Get(i).Name()); sameName(name, goName) {
			return name
		}
	}
	return goName
}

// sameName compares "virtual_hosts" with "VirtualHosts".
func sameName(protoName, goName string) bool {
	return strings.EqualFold(strings.ReplaceAll(protoName, "_", ""), strings.ReplaceAll(goName, "_", ""))
}

// atoi reads a list index of protoc-gen-validate, which writes decimal digits.
func atoi(digits string) int {
	n := 0
	for i := range len(digits) {
		n = n*10 + int(digits[i]-'0')
	}
	return n
}
