// Package slim gives back the memory of maps that were large once. A map of Go keeps
// the room for all that it ever held at the same time, so that a process which had
// ten thousand clusters for a minute would hold megabytes for them until it ends.
package slim

import "maps"

// least is from how many entries on a map is worth the work.
const least = 1024

// Fit returns m, or a copy of it that has no room to spare if m holds a quarter or
// less of what it held at most. Call it after entries were deleted, and use what it
// returns in place of m; most is the caller's, zero at first, and belongs to this map.
// On average it costs less than the deletions. A loop over m may go on: it then sees
// what is deleted of the copy.
func Fit[M ~map[K]V, K comparable, V any](m M, most *int) M {
	*most = max(*most, len(m))
	if *most < least || len(m) > *most/4 {
		return m
	}
	fit := make(M, len(m))
	maps.Copy(fit, m)
	*most = len(fit)
	return fit
}
