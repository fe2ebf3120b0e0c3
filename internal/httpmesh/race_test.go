//go:build race

package httpmesh

// raceEnabled: the race detector allocates, and makes sync.Pool forget.
const raceEnabled = true
