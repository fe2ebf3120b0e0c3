package faultproxy

import "time"

// Faults are what happens to the bytes of one direction. The zero value passes
// them on as they come. Several can be combined.
type Faults struct {
	// Latency delays what passes; what follows closely is not delayed further. 0
	// is none.
	Latency time.Duration
	// Jitter adds a random time in [0, Jitter) to Latency. The order of the bytes
	// stays, as it does in TCP.
	Jitter time.Duration
	// Bandwidth is in bytes per second; 0 is without a limit.
	Bandwidth int
	// Slice passes the bytes on in pieces of at most so many, which arrive one by
	// one; 0 passes on what was read at once.
	Slice int
	// SliceDelay is waited between the pieces.
	SliceDelay time.Duration
	// Limit resets the connection once so many bytes have passed in this
	// direction, counted from its beginning; 0 is without a limit.
	Limit int64
	// Blackhole swallows the bytes, and the end of the stream too: the receiver
	// waits for ever, on a connection that looks alive.
	Blackhole bool
	// HalfOpen keeps the end of the stream from the receiver, as when a machine
	// vanishes: bytes pass, a close does not.
	HalfOpen bool
	// Reset resets a connection as soon as a byte is to pass.
	Reset bool
}

// pause is how long a piece of n bytes occupies the line.
func (f *Faults) pause(n int) time.Duration {
	if f.Bandwidth <= 0 {
		return 0
	}
	return time.Duration(float64(n) / float64(f.Bandwidth) * float64(time.Second))
}
