// Code generated from k8s.io/api by generate; DO NOT EDIT.

package kubeapi

// IntOrString is a number or a name, as it is written.
type IntOrString string

// EndpointSlice is EndpointSlice of Kubernetes' API.
type EndpointSlice struct {
	AddressType string         `json:"addressType"`
	Endpoints   []Endpoint     `json:"endpoints"`
	Ports       []EndpointPort `json:"ports"`
}

// ServiceSpec is ServiceSpec of Kubernetes' API.
type ServiceSpec struct {
	Ports                         []ServicePort          `json:"ports"`
	Selector                      map[string]string      `json:"selector"`
	ClusterIP                     string                 `json:"clusterIP"`
	ClusterIPs                    []string               `json:"clusterIPs"`
	Type                          string                 `json:"type"`
	ExternalIPs                   []string               `json:"externalIPs"`
	SessionAffinity               string                 `json:"sessionAffinity"`
	LoadBalancerIP                string                 `json:"loadBalancerIP"`
	LoadBalancerSourceRanges      []string               `json:"loadBalancerSourceRanges"`
	ExternalName                  string                 `json:"externalName"`
	ExternalTrafficPolicy         string                 `json:"externalTrafficPolicy"`
	HealthCheckNodePort           int32                  `json:"healthCheckNodePort"`
	PublishNotReadyAddresses      bool                   `json:"publishNotReadyAddresses"`
	SessionAffinityConfig         *SessionAffinityConfig `json:"sessionAffinityConfig"`
	IPFamilies                    []string               `json:"ipFamilies"`
	IPFamilyPolicy                *string                `json:"ipFamilyPolicy"`
	AllocateLoadBalancerNodePorts *bool                  `json:"allocateLoadBalancerNodePorts"`
	LoadBalancerClass             *string                `json:"loadBalancerClass"`
	InternalTrafficPolicy         *string                `json:"internalTrafficPolicy"`
	TrafficDistribution           *string                `json:"trafficDistribution"`
}

// PodSpec is PodSpec of Kubernetes' API.
type PodSpec struct {
	ServiceAccountName string `json:"serviceAccountName"`
}

// NodeSpec is NodeSpec of Kubernetes' API.
type NodeSpec struct {
	Unschedulable bool `json:"unschedulable"`
}

// Endpoint is Endpoint of Kubernetes' API.
type Endpoint struct {
	Addresses          []string           `json:"addresses"`
	Conditions         EndpointConditions `json:"conditions"`
	Hostname           *string            `json:"hostname"`
	TargetRef          *ObjectReference   `json:"targetRef"`
	DeprecatedTopology map[string]string  `json:"deprecatedTopology"`
	NodeName           *string            `json:"nodeName"`
	Zone               *string            `json:"zone"`
	Hints              *EndpointHints     `json:"hints"`
}

// EndpointPort is EndpointPort of Kubernetes' API.
type EndpointPort struct {
	Name        *string `json:"name"`
	Protocol    *string `json:"protocol"`
	Port        *int32  `json:"port"`
	AppProtocol *string `json:"appProtocol"`
}

// ServicePort is ServicePort of Kubernetes' API.
type ServicePort struct {
	Name        string      `json:"name"`
	Protocol    string      `json:"protocol"`
	AppProtocol *string     `json:"appProtocol"`
	Port        int32       `json:"port"`
	TargetPort  IntOrString `json:"targetPort"`
	NodePort    int32       `json:"nodePort"`
}

// SessionAffinityConfig is SessionAffinityConfig of Kubernetes' API.
type SessionAffinityConfig struct {
	ClientIP *ClientIPConfig `json:"clientIP"`
}

// EndpointConditions is EndpointConditions of Kubernetes' API.
type EndpointConditions struct {
	Ready       *bool `json:"ready"`
	Serving     *bool `json:"serving"`
	Terminating *bool `json:"terminating"`
}

// ObjectReference is ObjectReference of Kubernetes' API.
type ObjectReference struct {
	Kind            string `json:"kind"`
	Namespace       string `json:"namespace"`
	Name            string `json:"name"`
	UID             string `json:"uid"`
	APIVersion      string `json:"apiVersion"`
	ResourceVersion string `json:"resourceVersion"`
	FieldPath       string `json:"fieldPath"`
}

// EndpointHints is EndpointHints of Kubernetes' API.
type EndpointHints struct {
	ForZones []ForZone `json:"forZones"`
	ForNodes []ForNode `json:"forNodes"`
}

// ClientIPConfig is ClientIPConfig of Kubernetes' API.
type ClientIPConfig struct {
	TimeoutSeconds *int32 `json:"timeoutSeconds"`
}

// ForZone is ForZone of Kubernetes' API.
type ForZone struct {
	Name string `json:"name"`
}

// ForNode is ForNode of Kubernetes' API.
type ForNode struct {
	Name string `json:"name"`
}
