// Package layout keeps the house in order. It has no code of its own: its
// tests read the source of every package of the module and fail on an import
// that points up, on a package that stands on no floor, on a dependency in a
// place where it does not belong, and on a dependency that docs/dependencies.md
// does not explain.
//
// docs/architecture.md describes the floors; floors_test.go is the list.
package layout
