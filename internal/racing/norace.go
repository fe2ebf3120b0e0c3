//go:build !race

package racing

// Enabled is true in a program that was built with -race.
const Enabled = false
