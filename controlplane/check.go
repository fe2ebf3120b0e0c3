package controlplane

import (
	"crypto/sha256"
	"sync"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// checks asks whether clients take resources, and remembers those that they do: of a
// changed configuration only what changed is asked about. It is safe for concurrent
// use.
type checks struct {
	ask func(typeURL string, value []byte) error

	mu sync.Mutex
	// taken are the digests of this configuration's resources, before those of the last
	// one's.
	taken, before map[[sha256.Size]byte]struct{} // guarded by mu
}

// check is ask for what is not remembered.
func (c *checks) check(typeURL string, value []byte) error {
	key := digestOf(typeURL, value)
	c.mu.Lock()
	_, known := c.taken[key]
	if !known {
		_, known = c.before[key]
	}
	c.mu.Unlock()
	if !known {
		if err := c.ask(typeURL, value); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken == nil {
		c.taken = make(map[[sha256.Size]byte]struct{})
	}
	c.taken[key] = struct{}{}
	return nil
}

func digestOf(typeURL string, value []byte) [sha256.Size]byte {
	digest := sha256.New()
	_, _ = digest.Write([]byte(typeURL)) // never fails, says its documentation
	_, _ = digest.Write([]byte{0})       // in no type URL
	_, _ = digest.Write(value)
	return [sha256.Size]byte(digest.Sum(nil))
}

// next forgets what the configuration before the last one had.
func (c *checks) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken, c.before = nil, c.taken
}

// parse reads a configuration as it would be served.
func (s *Server) parse(files []istio.File) (*istio.Config, []istio.Problem) {
	s.checks.next()
	return istio.Parse(files, s.options)
}
