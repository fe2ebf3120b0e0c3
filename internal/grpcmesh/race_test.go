//go:build race

package grpcmesh_test

// raceEnabled: the race detector allocates, and makes sync.Pool forget.
const raceEnabled = true
