//go:build race

package meshotel

// raceEnabled: the race detector makes sync.Pool forget on purpose.
const raceEnabled = true
