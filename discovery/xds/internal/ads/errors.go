package ads

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrUnanswered is wrapped by the error of a resource that counts as one that does
// not exist although the server has not said so: only because the time for an
// answer is over.
var ErrUnanswered = errors.New("no answer in time")

// ErrOffline is wrapped by an error that is about the connection and not about a
// resource: no server can be reached that could say anything.
var ErrOffline = errors.New("offline")

// ErrTransient is wrapped by the error of a resource for which the server has no
// answer now, and may have one later (xDS TP3, gRFC A88).
var ErrTransient = errors.New("transient")

// ErrRefused is wrapped by the error of a resource that the server does not give to this
// client (PERMISSION_DENIED of xDS TP3, gRFC A88).
var ErrRefused = errors.New("refused")

// marked is an error that is another one, too, of which its text says nothing.
type marked struct {
	error
	as error
}

// Unwrap returns both.
func (m marked) Unwrap() []error { return []error{m.error, m.as} }

// errIdle ends a stream that nobody needs.
var errIdle = errors.New("nothing is watched")

// errEnded is the end of a stream that the server closed without an error.
var errEnded = errors.New("the server closed the stream")

// errNotReading ends a stream whose server does not take the answers to its
// responses.
var errNotReading = errors.New("the server sends without reading the acknowledgements")

// errForgetful ends a stream over delta whose server would not keep what it was
// asked for.
var errForgetful = errors.New("the server does not name itself, as istiod: its delta forgets names")

// Error is what a [Watcher] is told: which resource has a problem, and which.
type Error struct {
	// Type is the type's short name.
	Type string
	// Name is the resource's name.
	Name string
	// Err is the reason.
	Err error
	// Node is the id under which this client is known to the control plane: who reads
	// of a failed call finds the process there by it (gRFC A88). "" if there is none.
	Node string
}

// Error returns the type, the quoted name, the reason and the node.
func (e *Error) Error() string {
	if e.Node == "" {
		return fmt.Sprintf("%s %q: %v", e.Type, e.Name, e.Err)
	}
	return fmt.Sprintf("%s %q: %v (xDS node %q)", e.Type, e.Name, e.Err, e.Node)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// maxDetail limits the text of a rejection, so that the request that carries
// it stays far below the 4 MiB that a gRPC server accepts by default.
const maxDetail = 256 << 10

// rejection is why a response is rejected: one error per bad resource.
type rejection struct {
	total    int
	problems []problem
}

// problem is one bad entry of a response. Its name is "" if unknown.
type problem struct {
	index  int
	name   string
	err    error
	digest digest // of its bytes, if they were looked at
}

func (p *problem) String() string {
	if p.name == "" {
		return fmt.Sprintf("resource %d: %v", p.index, p.err)
	}
	return fmt.Sprintf("resource %d %q: %v", p.index, p.name, p.err)
}

// digest identifies what was rejected, and for which reasons.
func (r *rejection) digest() (d digest) {
	h := sha256.New()
	for i := range r.problems {
		h.Write(r.problems[i].digest[:])
		h.Write([]byte(r.problems[i].err.Error()))
	}
	h.Sum(d[:0])
	return d
}

// Error lists every bad entry by index, name and reason, up to maxDetail bytes.
// It is valid UTF-8 whatever the reasons hold, because protobuf strings must be.
func (r *rejection) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "rejected %d of %d resources: ", len(r.problems), r.total)
	for i := range r.problems {
		if i > 0 {
			b.WriteString("; ")
		}
		text := strings.ToValidUTF8(r.problems[i].String(), "\uFFFD")
		if room := maxDetail - b.Len(); len(text) > room {
			b.WriteString(clip(text, max(room, 0)))
			fmt.Fprintf(&b, "... (%d more)", len(r.problems)-i-1)
			break
		}
		b.WriteString(text)
	}
	return b.String()
}

// clip returns at most n bytes of s, cut between runes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
