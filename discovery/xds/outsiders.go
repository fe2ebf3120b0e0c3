package xds

import (
	"errors"
	"time"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// outsiderPatience is how long what is new waits for servers of another authority that
// cannot be reached: as long as for one that can be and is silent (gRFC A57).
const outsiderPatience = 15 * time.Second

// outsiders bounds what the servers of other authorities hold up, if a follower refers
// to resources of theirs (gRFC A47). A control plane that cannot be reached may have been
// about to send what is missing, and what is in force stays until then. If the missing
// part is another control plane's, the rest of what this one has said is complete: it
// must neither keep a process from beginning with it, nor be away for a day and keep
// routes and policies of the other one from being changed. A cluster that cannot be had
// then fails its own calls, as one that does not exist does, and is used when it is there.
type outsiders struct {
	// home is the authority of the Listener.
	home string
	// timer runs while anything that is in force stays because of outsiders, over is
	// set when it has run.
	timer *time.Timer
	over  bool
	// met is set when an outsider is found to be away.
	met bool
}

// authorityOf is the authority of a name in any form.
func authorityOf(name string) string { return ads.Authority(ads.Canonical(name)) }

// waitsLocked reports whether a cluster that cannot be asked for holds up what is new.
// inForce is whether there is anything in force meanwhile.
func (o *outsiders) waitsLocked(err error, inForce bool, f follower) bool {
	of, ok := errors.AsType[*ads.Error](err)
	if !ok || authorityOf(of.Name) == o.home {
		return true
	}
	o.met = true
	if o.over || !inForce {
		return false
	}
	if o.timer == nil {
		var timer *time.Timer
		timer = time.AfterFunc(outsiderPatience, func() {
			f.Lock()
			defer f.Unlock()
			if o.timer == timer {
				o.over = true
				f.updateLocked()
			}
		})
		o.timer = timer
	}
	return true
}

// settleLocked ends the wait if no outsider was met among all clusters.
func (o *outsiders) settleLocked() {
	if o.met || o.timer == nil {
		return
	}
	o.timer.Stop()
	o.timer, o.over = nil, false
}
