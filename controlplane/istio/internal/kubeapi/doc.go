// Package kubeapi holds what the control plane reads of Kubernetes' EndpointSlice
// (discovery.k8s.io/v1), Service, Pod and Node (v1), as plain structs. They are
// generated from the published types, by a module of their own: those types bring
// Kubernetes' API machinery with them, which applications that use the mesh must
// be able to choose themselves.
//
// A pointer is nil, and a list empty, for a field that is not set; nobody has
// applied defaults.
package kubeapi
