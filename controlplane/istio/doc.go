// Package istio turns Istio's own YAML documents, routes of Kubernetes' Gateway
// API, and what kubectl exports of a cluster's services into xDS resources.
//
// [Parse] reads ServiceEntry, WorkloadEntry, DestinationRule, VirtualService,
// PeerAuthentication, RequestAuthentication, AuthorizationPolicy, HTTPRoute and
// GRPCRoute documents and the ConfigMap of Istio's mesh configuration, as kubectl
// takes them, and gives either a [Config] or every problem that the documents have, each with
// its file, line, column, object and field. A Config answers what resource a node
// gets for a name, in the dialect that Istio speaks to proxyless gRPC clients:
//
//   - Listener "host:port" with an API listener, and
//     "xds.istio.io/grpc/lds/inbound/IP:PORT" for a listener of the node;
//   - RouteConfiguration "outbound|PORT||HOST";
//   - Cluster and ClusterLoadAssignment "outbound|PORT|SUBSET|HOST"; the cluster of
//     a ServiceEntry whose names clients resolve (DNS, DNS_ROUND_ROBIN) has its
//     endpoints in it.
//
// What a node gets depends on its namespace and labels, as in Istio: it sees what
// is exported to it (exportTo), a DestinationRule is looked for in its
// namespace, then in that of the service, then in the root namespace, and a
// route can be for some callers only (sourceLabels, sourceNamespace). Nodes that
// get the same answer share one message.
//
// HTTPRoute and GRPCRoute are those of a mesh (GAMMA, GEP-1294): their parents
// are Services, whose ServiceEntry has the host NAME.NAMESPACE.svc.cluster.local,
// or ServiceEntries by name. A route of the service's namespace is for every
// client. One of another namespace is for the clients there, who have no others
// then. One without a port is for all ports of the Service, a GRPCRoute for those of
// plain HTTP too, where it takes the place of every HTTPRoute; that is a warning.
// Matches are ordered by the Gateway API's rules; an expression stands after
// what is written out. What matches no rule has no route. Filters of a rule that
// exclude each other are problems. A backend that is not there fails its share of the
// requests with 500, those of a GRPCRoute with UNAVAILABLE, and a parent that is a Gateway is not
// accepted: both are warnings. [Config.Routes] has the status of each route.
//
// Services, EndpointSlices, Pods and Nodes are read as kubectl get -o yaml prints
// them. A Service is the host NAME.NAMESPACE.svc.cluster.local, with the ports whose
// appProtocol or name says that they speak HTTP, HTTP/2, gRPC or TCP. An endpoint that
// is ready is healthy, one that ends and still serves is draining, and no other is
// called; its zone is the slice's, its region its Node's. Its labels, its service
// account, and with that its mutual TLS are its Pod's: of an endpoint whose Pod is
// in no document they are not known, which is a warning. A Pod with a service
// account offers mutual TLS unless its label security.istio.io/tlsMode says
// otherwise. Hints, hostnames and what is for kube-proxy are not looked at. A Service of
// the type ExternalName is a further name of a host of the mesh, as in Istio, or an
// outside host on its ports. A WorkloadEntry with the annotation
// proxy.istio.io/health-checks-enabled is called while its condition Healthy is
// True.
//
// A document that is not about the mesh is skipped, and a warning names it: of Kubernetes, of
// other programs, of gateways. So is what a route says for gateways. What would
// change what is allowed or what becomes of calls, as EnvoyFilter and Sidecar do, and is not
// enforced is a problem.
//
// The meaning of every field and every default is Istio's, with four
// differences, all on the safe side. A field or a value that is not
// translated is a problem, never skipped. References are checked: hosts,
// subsets and ports that a document names must exist in the same set of
// documents; what another namespace does not have is a warning, and calls to it fail. Where Istio decides on mutual TLS endpoint by endpoint, a cluster
// here has one answer: a mixture is a problem until a DestinationRule gives the
// mode. And where Istio lets the oldest object win, a file may not tell its age:
// then the object of the service's own namespace goes first, so that nobody takes the calls of
// others by adding a document, and two of one namespace are a problem.
//
// Documents of several namespaces about one host are ranked as in Istio, and who loses is
// told by a warning: a VirtualService that is exported more narrowly goes first, then routes of
// the Gateway API of the callers' own namespace, then the older one of a VirtualService
// and the routes of the service's namespace. A host of several namespaces is,
// for all others, that of the namespace which its name names, then of the oldest.
//
// What is allowed and hardly what was meant is in [Config.Warnings].
//
// The package is pure: it opens no connection, watches no file and keeps no
// state outside a Config.
package istio
