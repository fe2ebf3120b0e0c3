//go:build !race

package meshotel

const raceEnabled = false
