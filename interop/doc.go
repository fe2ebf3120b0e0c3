// Package interop holds tests against programs of others that are too heavy for the
// root module's requirements. It has nothing for users.
package interop
