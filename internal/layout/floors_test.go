package layout

// plane tells which half of the mesh a package belongs to. The data plane and
// the control plane share a wire format and nothing else, so that either can
// be replaced by somebody else's.
type plane uint8

const (
	// shared packages are leaves that both planes may use.
	shared plane = iota
	dataPlane
	controlPlane
	// whole packages put both planes together: programs and test fixtures.
	whole
)

// place is where a package stands. It imports only from lower floors.
type place struct {
	floor int
	plane plane
}

// floors lists every package of the module by its path below the module's. A
// path that ends in "/..." stands for everything below it. A new package gets
// its line here together with the commit that adds it.
var floors = map[string]place{
	"outcome":              {0, dataPlane},
	"internal/watch":       {0, shared},
	"internal/memnet":      {0, shared},
	"internal/orca":        {2, dataPlane},
	"internal/deadline":    {0, shared},
	"internal/near":        {0, shared},
	"internal/slim":        {0, shared},
	"internal/racing":      {0, shared},
	"internal/cputime":     {0, shared},
	"internal/strictjson":  {0, shared},
	"internal/bundlemap":   {0, dataPlane},
	"internal/regularfile": {0, shared},
	"internal/tlstest":     {0, shared},
	"internal/faultproxy":  {0, shared},
	"internal/hangup":      {0, dataPlane},
	"internal/ping":        {0, dataPlane},
	"internal/token":       {0, shared},
	"internal/tokentest":   {0, shared},
	"internal/http1":       {1, dataPlane},
	"internal/layout":      {0, shared},
	"internal/conformance": {0, shared},
	"observe":              {1, dataPlane},
	"retry":                {1, dataPlane},
	"breaker":              {1, dataPlane},
	"balancer":             {1, dataPlane},
	"health":               {1, dataPlane},
	"tls/meshtls":          {1, dataPlane},
	"internal/adstest":     {1, shared},
	"internal/condition":   {1, dataPlane},
	"internal/calltest":    {2, dataPlane},
	"outcome/meshfail":     {1, dataPlane},

	"tls/internal/keeper": {2, dataPlane},
	"internal/secret":     {2, dataPlane},
	"tls/istioca":         {3, dataPlane},
	"tls/filesource":      {3, dataPlane},
	"tls/spiffe":          {3, dataPlane},
	"tls/sds":             {3, dataPlane},
	"otel/meshotel":       {2, dataPlane},
	"discovery":           {2, dataPlane},
	"discovery/bootstrap": {2, dataPlane},

	"discovery/xds/internal/ads":      {3, dataPlane},
	"discovery/xds/internal/decode":   {3, dataPlane},
	"discovery/xds/internal/lastgood": {3, dataPlane},
	"internal/route":                  {3, dataPlane},
	"internal/upstream":               {3, dataPlane},

	"discovery/xds":           {4, dataPlane},
	"internal/filter":         {4, dataPlane},
	"internal/arrival":        {4, dataPlane},
	"internal/filter/fault":   {5, dataPlane},
	"internal/filter/rbac":    {5, dataPlane},
	"internal/filter/cors":    {5, dataPlane},
	"internal/filter/session": {5, dataPlane},
	"internal/pipeline":       {6, dataPlane},
	"internal/explain":        {7, dataPlane},
	"internal/inbound":        {7, dataPlane},
	"internal/httpmesh":       {8, dataPlane},
	"internal/grpcmesh":       {8, dataPlane},
	"internal/tcpmesh":        {8, dataPlane},
	"mesh":                    {9, dataPlane},

	"internal/filter/extauthz": {5, dataPlane},
	"internal/filter/jwt":      {5, dataPlane},
	"internal/filter/service":  {4, dataPlane},

	"internal/relay":  {4, dataPlane},
	"mesh/nativegrpc": {10, dataPlane},

	"controlplane/istio/internal/gatewayapi": {1, controlPlane},
	"controlplane/istio/internal/kubeapi":    {1, controlPlane},

	"controlplane/istio": {2, controlPlane},
	"controlplane/ca":    {2, controlPlane},
	"controlplane":       {3, controlPlane},

	"internal/ask":       {10, dataPlane},
	"admin":              {11, dataPlane},
	"mesh/meshtest":      {10, whole},
	"internal/worldtest": {10, whole},
	"internal/offline":   {11, whole},
	"cmd/inboard":        {12, whole},
	"examples/paymentpb": {10, shared},
	"examples/...":       {12, whole},
}

// confinement keeps a dependency in the places that are made for it. Test
// files are free: they script the other side.
type confinement struct {
	// imported is the import path, which may end in "/...".
	imported string
	// allowed are the packages that may import it, which may end in "/...".
	allowed []string
	reason  string
}

var confinements = []confinement{
	{
		imported: "github.com/envoyproxy/go-control-plane/...",
		// The authorization service and the secret discovery service are spoken to
		// in Envoy's API. The relay speaks to native gRPC, which knows no other.
		allowed: []string{"discovery/xds/...", "controlplane/...", "internal/adstest", "internal/filter/extauthz", "internal/secret", "tls/sds", "internal/relay"},
		reason:  "Envoy's protobufs end at the decoders: above them there is only the model of discovery",
	},
	{
		imported: "github.com/cncf/xds/...",
		allowed:  []string{"discovery/xds/...", "controlplane/...", "internal/adstest", "internal/orca", "internal/grpcmesh"},
		reason:   "xDS protobufs end at the decoders: above them there is only the model of discovery",
	},
	{
		imported: "istio.io/api/...",
		allowed:  []string{"controlplane/...", "tls/istioca"},
		reason:   "Istio's API is the control plane's input and the CA's protocol; nothing else may know it",
	},
	{
		imported: "google.golang.org/grpc/...",
		allowed: []string{
			"discovery/...", "controlplane/...", "tls/istioca", "tls/spiffe", "tls/sds", "internal/adstest", "internal/hangup",
			"outcome/meshfail", "internal/filter", "internal/pipeline", "internal/relay", "internal/grpcmesh", "internal/worldtest", "internal/ask", "internal/offline", "mesh/...", "admin", "cmd/...", "examples/...",
		},
		reason: "the leaves are neutral of the protocol and must not pull grpc-go in",
	},
	{
		imported: "google.golang.org/grpc/xds",
		allowed:  []string{"mesh/nativegrpc"},
		reason:   "grpc-go's own xDS is 70 packages, for those who have native gRPC as a guest",
	},
	{
		imported: "go.opentelemetry.io/otel/...",
		allowed:  []string{"otel/meshotel", "internal/calltest", "mesh/...", "cmd/...", "examples/..."},
		reason:   "everything else reports to observe.Hooks, so that telemetry can be replaced",
	},
	{
		imported: "github.com/sony/gobreaker/...",
		allowed:  []string{"breaker"},
		reason:   "the breaker's library is a detail of breaker",
	},
	{
		imported: "cel.dev/cel-go/...",
		allowed:  []string{"internal/condition", "internal/calltest"},
		reason:   "what an expression may ask, and what it means without an answer, is decided in one place",
	},
	{
		imported: "github.com/go-jose/...",
		allowed:  []string{"internal/token", "controlplane/ca"},
		reason:   "what a token is worth is decided in one place",
	},
	{
		imported: "github.com/prometheus/...",
		allowed:  []string{"controlplane"},
		reason:   "the mesh reports by OpenTelemetry; only the control plane's page is scraped",
	},
	{
		imported: "testing/...",
		allowed:  []string{"internal/adstest", "internal/calltest", "internal/worldtest", "mesh/meshtest"},
		reason:   "it registers flags in the program that imports it",
	},
	{
		imported: "log",
		reason:   "use log/slog with the logger that was passed in; package log is global state",
	},
	{
		imported: "expvar",
		reason:   "it registers a handler on http.DefaultServeMux when it is imported",
	},
	{
		imported: "net/http/pprof",
		reason:   "it registers handlers on http.DefaultServeMux when it is imported",
	},
	{
		imported: "math/rand",
		reason:   "use math/rand/v2",
	},
	{
		imported: "unsafe",
		reason:   "nothing here is worth it",
	},
	{
		imported: "github.com/golang/protobuf/...",
		reason:   "use google.golang.org/protobuf",
	},
	{
		imported: "gopkg.in/yaml.v3/...",
		reason:   "it is unmaintained; use go.yaml.in/yaml/v3",
	},
}

// registersInInit are the packages that may have init functions, each with its
// reason.
var registersInInit = map[string]string{
	"internal/grpcmesh": "grpc-go finds load-balancing policies only in its global registry; ours holds no state",
	"mesh/nativegrpc":   "grpc-go finds channel credentials and certificate providers only in its global registries, which are to be written to in init",
}

// maxLines is the length from which on a file holds more than one idea.
const maxLines = 600
