// Package racing tells a test whether it runs under the race detector, which
// allocates, makes [sync.Pool] forget on purpose, and takes ten times the processor
// time: a test that counts allocations is skipped there, and one that repeats itself
// a thousand times repeats itself less often.
package racing
