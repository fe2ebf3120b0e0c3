package observe

import "time"

// DrainReport is what became of the requests and connections that a process was
// serving when it began to drain, and of those that still came.
type DrainReport struct {
	// Duration is how long it took; Listening is how much of that connections
	// were accepted for.
	Duration, Listening time.Duration
	// Finished are the requests that ended meanwhile, Late those of all that had
	// not begun before. Cut are those that still ran when the time was over.
	Finished, Late, Cut int64
	// Closed are the connections that ended meanwhile. Idle are those that were
	// left to their server, which closes them when it is shut down: nothing ran
	// over them. ConnectionsCut were closed because the time was over.
	Closed, Idle, ConnectionsCut int64
	// Refused are the connections that came too late: no server has seen them.
	Refused int64
}
