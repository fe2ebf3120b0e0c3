//go:build !race

package httpmesh

const raceEnabled = false
