// Code generated from sigs.k8s.io/gateway-api/apis/v1 by generate; DO NOT EDIT.

package gatewayapi

// HTTPRouteSpec is HTTPRouteSpec of the Gateway API.
type HTTPRouteSpec struct {
	ParentRefs         []ParentReference `json:"parentRefs"`
	UseDefaultGateways string            `json:"useDefaultGateways"`
	Hostnames          []string          `json:"hostnames"`
	Rules              []HTTPRouteRule   `json:"rules"`
}

// GRPCRouteSpec is GRPCRouteSpec of the Gateway API.
type GRPCRouteSpec struct {
	ParentRefs         []ParentReference `json:"parentRefs"`
	UseDefaultGateways string            `json:"useDefaultGateways"`
	Hostnames          []string          `json:"hostnames"`
	Rules              []GRPCRouteRule   `json:"rules"`
}

// ParentReference is ParentReference of the Gateway API.
type ParentReference struct {
	Group       *string `json:"group"`
	Kind        *string `json:"kind"`
	Namespace   *string `json:"namespace"`
	Name        string  `json:"name"`
	SectionName *string `json:"sectionName"`
	Port        *int32  `json:"port"`
}

// HTTPRouteRule is HTTPRouteRule of the Gateway API.
type HTTPRouteRule struct {
	Name               *string             `json:"name"`
	Matches            []HTTPRouteMatch    `json:"matches"`
	Filters            []HTTPRouteFilter   `json:"filters"`
	BackendRefs        []HTTPBackendRef    `json:"backendRefs"`
	Timeouts           *HTTPRouteTimeouts  `json:"timeouts"`
	Retry              *HTTPRouteRetry     `json:"retry"`
	SessionPersistence *SessionPersistence `json:"sessionPersistence"`
}

// GRPCRouteRule is GRPCRouteRule of the Gateway API.
type GRPCRouteRule struct {
	Name               *string             `json:"name"`
	Matches            []GRPCRouteMatch    `json:"matches"`
	Filters            []GRPCRouteFilter   `json:"filters"`
	BackendRefs        []GRPCBackendRef    `json:"backendRefs"`
	SessionPersistence *SessionPersistence `json:"sessionPersistence"`
}

// HTTPRouteMatch is HTTPRouteMatch of the Gateway API.
type HTTPRouteMatch struct {
	Path        *HTTPPathMatch        `json:"path"`
	Headers     []HTTPHeaderMatch     `json:"headers"`
	QueryParams []HTTPQueryParamMatch `json:"queryParams"`
	Method      *string               `json:"method"`
}

// HTTPRouteFilter is HTTPRouteFilter of the Gateway API.
type HTTPRouteFilter struct {
	Type                   string                     `json:"type"`
	RequestHeaderModifier  *HTTPHeaderFilter          `json:"requestHeaderModifier"`
	ResponseHeaderModifier *HTTPHeaderFilter          `json:"responseHeaderModifier"`
	RequestMirror          *HTTPRequestMirrorFilter   `json:"requestMirror"`
	RequestRedirect        *HTTPRequestRedirectFilter `json:"requestRedirect"`
	URLRewrite             *HTTPURLRewriteFilter      `json:"urlRewrite"`
	CORS                   *HTTPCORSFilter            `json:"cors"`
	ExternalAuth           *HTTPExternalAuthFilter    `json:"externalAuth"`
	ExtensionRef           *LocalObjectReference      `json:"extensionRef"`
}

// HTTPBackendRef is HTTPBackendRef of the Gateway API.
type HTTPBackendRef struct {
	Group     *string           `json:"group"`
	Kind      *string           `json:"kind"`
	Name      string            `json:"name"`
	Namespace *string           `json:"namespace"`
	Port      *int32            `json:"port"`
	Weight    *int32            `json:"weight"`
	Filters   []HTTPRouteFilter `json:"filters"`
}

// HTTPRouteTimeouts is HTTPRouteTimeouts of the Gateway API.
type HTTPRouteTimeouts struct {
	Request        *string `json:"request"`
	BackendRequest *string `json:"backendRequest"`
}

// HTTPRouteRetry is HTTPRouteRetry of the Gateway API.
type HTTPRouteRetry struct {
	Codes    []int   `json:"codes"`
	Attempts *int    `json:"attempts"`
	Backoff  *string `json:"backoff"`
}

// SessionPersistence is SessionPersistence of the Gateway API.
type SessionPersistence struct {
	SessionName     *string       `json:"sessionName"`
	AbsoluteTimeout *string       `json:"absoluteTimeout"`
	Type            *string       `json:"type"`
	CookieConfig    *CookieConfig `json:"cookieConfig"`
}

// GRPCRouteMatch is GRPCRouteMatch of the Gateway API.
type GRPCRouteMatch struct {
	Method  *GRPCMethodMatch  `json:"method"`
	Headers []GRPCHeaderMatch `json:"headers"`
}

// GRPCRouteFilter is GRPCRouteFilter of the Gateway API.
type GRPCRouteFilter struct {
	Type                   string                   `json:"type"`
	RequestHeaderModifier  *HTTPHeaderFilter        `json:"requestHeaderModifier"`
	ResponseHeaderModifier *HTTPHeaderFilter        `json:"responseHeaderModifier"`
	RequestMirror          *HTTPRequestMirrorFilter `json:"requestMirror"`
	ExtensionRef           *LocalObjectReference    `json:"extensionRef"`
}

// GRPCBackendRef is GRPCBackendRef of the Gateway API.
type GRPCBackendRef struct {
	Group     *string           `json:"group"`
	Kind      *string           `json:"kind"`
	Name      string            `json:"name"`
	Namespace *string           `json:"namespace"`
	Port      *int32            `json:"port"`
	Weight    *int32            `json:"weight"`
	Filters   []GRPCRouteFilter `json:"filters"`
}

// HTTPPathMatch is HTTPPathMatch of the Gateway API.
type HTTPPathMatch struct {
	Type  *string `json:"type"`
	Value *string `json:"value"`
}

// HTTPHeaderMatch is HTTPHeaderMatch of the Gateway API.
type HTTPHeaderMatch struct {
	Type  *string `json:"type"`
	Name  string  `json:"name"`
	Value string  `json:"value"`
}

// HTTPQueryParamMatch is HTTPQueryParamMatch of the Gateway API.
type HTTPQueryParamMatch struct {
	Type  *string `json:"type"`
	Name  string  `json:"name"`
	Value string  `json:"value"`
}

// HTTPHeaderFilter is HTTPHeaderFilter of the Gateway API.
type HTTPHeaderFilter struct {
	Set    []HTTPHeader `json:"set"`
	Add    []HTTPHeader `json:"add"`
	Remove []string     `json:"remove"`
}

// HTTPRequestMirrorFilter is HTTPRequestMirrorFilter of the Gateway API.
type HTTPRequestMirrorFilter struct {
	BackendRef BackendObjectReference `json:"backendRef"`
	Percent    *int32                 `json:"percent"`
	Fraction   *Fraction              `json:"fraction"`
}

// HTTPRequestRedirectFilter is HTTPRequestRedirectFilter of the Gateway API.
type HTTPRequestRedirectFilter struct {
	Scheme     *string           `json:"scheme"`
	Hostname   *string           `json:"hostname"`
	Path       *HTTPPathModifier `json:"path"`
	Port       *int32            `json:"port"`
	StatusCode *int              `json:"statusCode"`
}

// HTTPURLRewriteFilter is HTTPURLRewriteFilter of the Gateway API.
type HTTPURLRewriteFilter struct {
	Hostname *string           `json:"hostname"`
	Path     *HTTPPathModifier `json:"path"`
}

// HTTPCORSFilter is HTTPCORSFilter of the Gateway API.
type HTTPCORSFilter struct {
	AllowOrigins     []string `json:"allowOrigins"`
	AllowCredentials *bool    `json:"allowCredentials"`
	AllowMethods     []string `json:"allowMethods"`
	AllowHeaders     []string `json:"allowHeaders"`
	ExposeHeaders    []string `json:"exposeHeaders"`
	MaxAge           int32    `json:"maxAge"`
}

// HTTPExternalAuthFilter is HTTPExternalAuthFilter of the Gateway API.
type HTTPExternalAuthFilter struct {
	ExternalAuthProtocol string                 `json:"protocol"`
	BackendRef           BackendObjectReference `json:"backendRef"`
	GRPCAuthConfig       *GRPCAuthConfig        `json:"grpc"`
	HTTPAuthConfig       *HTTPAuthConfig        `json:"http"`
	ForwardBody          *ForwardBodyConfig     `json:"forwardBody"`
}

// LocalObjectReference is LocalObjectReference of the Gateway API.
type LocalObjectReference struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

// CookieConfig is CookieConfig of the Gateway API.
type CookieConfig struct {
	LifetimeType *string `json:"lifetimeType"`
}

// GRPCMethodMatch is GRPCMethodMatch of the Gateway API.
type GRPCMethodMatch struct {
	Type    *string `json:"type"`
	Service *string `json:"service"`
	Method  *string `json:"method"`
}

// GRPCHeaderMatch is GRPCHeaderMatch of the Gateway API.
type GRPCHeaderMatch struct {
	Type  *string `json:"type"`
	Name  string  `json:"name"`
	Value string  `json:"value"`
}

// HTTPHeader is HTTPHeader of the Gateway API.
type HTTPHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// BackendObjectReference is BackendObjectReference of the Gateway API.
type BackendObjectReference struct {
	Group     *string `json:"group"`
	Kind      *string `json:"kind"`
	Name      string  `json:"name"`
	Namespace *string `json:"namespace"`
	Port      *int32  `json:"port"`
}

// Fraction is Fraction of the Gateway API.
type Fraction struct {
	Numerator   int32  `json:"numerator"`
	Denominator *int32 `json:"denominator"`
}

// HTTPPathModifier is HTTPPathModifier of the Gateway API.
type HTTPPathModifier struct {
	Type               string  `json:"type"`
	ReplaceFullPath    *string `json:"replaceFullPath"`
	ReplacePrefixMatch *string `json:"replacePrefixMatch"`
}

// GRPCAuthConfig is GRPCAuthConfig of the Gateway API.
type GRPCAuthConfig struct {
	AllowedRequestHeaders []string `json:"allowedHeaders"`
}

// HTTPAuthConfig is HTTPAuthConfig of the Gateway API.
type HTTPAuthConfig struct {
	Path                   string   `json:"path"`
	AllowedRequestHeaders  []string `json:"allowedHeaders"`
	AllowedResponseHeaders []string `json:"allowedResponseHeaders"`
}

// ForwardBodyConfig is ForwardBodyConfig of the Gateway API.
type ForwardBodyConfig struct {
	MaxSize uint16 `json:"maxSize"`
}
