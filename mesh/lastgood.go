package mesh

import (
	"time"

	"github.com/inboardmesh/inboard/discovery/xds"
)

// LastKnownGood is an [Option]: it keeps the configuration that the control plane
// sent on disk, for a start while the control plane is away.
//
//	m, err := mesh.New(ctx, mesh.LastKnownGood{Dir: "/var/lib/payment/mesh"})
//
// A process that starts while the control plane cannot be reached, or does not
// answer within a second, works with what is on disk, through the same validation as
// everything that comes from the control plane; it logs that, [Mesh.ConfigSource]
// says so, and so do the metrics inboard.lastgood.*. When the control plane is back,
// what it sends takes over without a failed call. What it says it does not have stays
// in force, as in a process that runs (gRFC A88), unless the server in the bootstrap
// has the feature fail_on_data_errors: it may have answered before it had loaded
// anything. On disk that is as old as the last time that the control plane had it.
//
// A file is used as a whole or not at all: one that is damaged, of another workload
// (by the node's ID in the bootstrap, which should not change with each start) or
// control plane, older than MaxAge, larger than MaxBytes, or that another user
// could have written, is refused with its reason. There are no certificates and no
// private keys in it: those come from their own sources, which must do without the
// control plane as well. A listener is opened only if its policy is there. A
// resource with an inline secret, such as a key set with a symmetric key, is not kept,
// and so what needs it waits for the control plane. The same holds for a resource with
// a time to live (ttl of the xDS Resource): it would outlive that on disk. Secrets in
// fields for any text, such as the value of a header that a route sets, are kept with
// the rest: nobody but this user can read the file.
//
// Writing happens beside the calls, about a second after a change, and when the mesh
// is closed. A disk that is full or read-only is logged and changes nothing else.
type LastKnownGood struct {
	// Dir is an absolute path of a directory of this user. It is made, with mode
	// 0700, if it is not there; one that others may write to is an error of [New].
	// Processes may share it: each has a file of its own there, and up to 64 may even
	// have the same identity, as the replicas on one host. A process begins with the
	// newest file of its identity. (Windows, Solaris, AIX and Plan 9 cannot lock a
	// file in the way that this needs: there, give each a directory.) "" keeps
	// nothing, which is the default.
	Dir string
	// MaxAge is how long ago the control plane may have been heard of, and may have
	// had a resource, at the start for what is on disk to be used: at least 1 s. Zero
	// is 24 h.
	MaxAge time.Duration
	// MaxBytes bounds the file, and what is held in memory to write it: at least 4
	// KiB. Zero is 64 MiB. A configuration that does not fit is not kept, which is
	// logged.
	MaxBytes int64
}

var _ Option = LastKnownGood{}

func (l LastKnownGood) apply(s *settings) { s.lastKnownGood = l }

func (l LastKnownGood) source() *xds.LastKnownGood {
	return &xds.LastKnownGood{Dir: l.Dir, MaxAge: l.MaxAge, MaxBytes: l.MaxBytes}
}

// ConfigSource says where the configuration in force comes from.
type ConfigSource = xds.ConfigSource

// ConfigSource says how much of the configuration in force comes from the control
// plane and how much from disk, see [LastKnownGood]. Safe for concurrent use.
func (m *Mesh) ConfigSource() ConfigSource { return m.source.ConfigSource() }
