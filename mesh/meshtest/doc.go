// Package meshtest is a whole mesh inside a test: an embedded control plane,
// services that are handlers, workloads that call them, and the network between
// them, all in memory. No port is opened. The mesh is the real one: the same
// routing, retries, limits and mutual TLS, configured over the same xDS by the
// same YAML as in production.
//
//	func TestCanary(t *testing.T) {
//		w := meshtest.New(t)
//		w.Service("payment.shop", meshtest.Version("v1"))
//		v2 := w.Service("payment.shop", meshtest.Version("v2"))
//		w.Apply(canaryYAML)
//		client := w.Workload("customer.shop").HTTPClient()
//		... // call http://payment.shop/ and look at v2.Requests()
//	}
//
// The ServiceEntries and the endpoints of the services are written by the
// [World]; a test writes what it tests: VirtualService, DestinationRule,
// PeerAuthentication. When [World.Service] or [World.Apply] returns, the change
// is in force in every workload and in every instance: the next call sees it.
//
// [Instance] breaks a service on purpose: it fails, delays and kills. [World.Calls]
// tells what the mesh decided: route, cluster, instance and outcome of every attempt,
// and [World.WantCalls] holds a test to it. [World.Try] asserts that a configuration
// is refused, and [World.Warnings] says what in it is hardly meant. [World.Workload]
// takes labels, a locality and options of its mesh. [World.Push] serves xDS resources in place of YAML.
//
// # Time
//
// Everything works inside a bubble of [testing/synctest], where a timeout of a
// minute takes no time and a back-off is exact, and outside of one. A World
// belongs to the bubble that it was made in. Its goroutines have ended when the
// test's cleanup has, which may take half a second, in a bubble none, for a
// connection whose request was answered before it was read; a response body that was not closed, or a gRPC channel,
// keeps some of them, and a bubble says so.
//
// # Differences from production
//
// Certificates are issued in memory, for years, and are not renewed. The control
// plane is asked in plaintext, which stays inside the process. A host that the
// mesh does not know is refused ([mesh.RegistryOnly]): a test does not reach the
// internet by mistake. Nothing is reported to OpenTelemetry.
package meshtest
