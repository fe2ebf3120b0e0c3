package jwt

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"github.com/inboardmesh/inboard/internal/token"
)

// cache remembers the tokens whose signature was verified lately, so that a
// caller that sends the same token again costs a hash. Everything but the
// signature is checked anew at each use, and a token counts only as long as the
// keys are those that verified it. It holds no token, but hashes of them. A nil
// cache remembers nothing. Safe for concurrent use.
type cache struct {
	size int

	mu      sync.Mutex
	entries map[[sha256.Size]byte]*list.Element // guarded by mu
	order   *list.List                          // guarded by mu; of *cached, the newest first
}

type cached struct {
	hash       [sha256.Size]byte
	token      *token.Token
	generation uint64
}

// maxCached is how large a token may be to be remembered (Envoy's
// jwt_max_token_size).
const maxCached = 4096

func newCache(size int) *cache {
	if size <= 0 {
		return nil
	}
	return &cache{size: size, entries: make(map[[sha256.Size]byte]*list.Element), order: list.New()}
}

// get returns a token, nil if it is not there, and which keys verified it.
func (c *cache) get(raw string) (*token.Token, uint64) {
	if c == nil || len(raw) > maxCached {
		return nil, 0
	}
	hash := sha256.Sum256([]byte(raw))
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.entries[hash]
	if element == nil {
		return nil, 0
	}
	c.order.MoveToFront(element)
	entry := element.Value.(*cached)
	return entry.token, entry.generation
}

// put remembers a token that was verified.
func (c *cache) put(raw string, t *token.Token, generation uint64) {
	if c == nil || len(raw) > maxCached {
		return
	}
	hash := sha256.Sum256([]byte(raw))
	c.mu.Lock()
	defer c.mu.Unlock()
	if element := c.entries[hash]; element != nil {
		element.Value = &cached{hash: hash, token: t, generation: generation}
		c.order.MoveToFront(element)
		return
	}
	c.entries[hash] = c.order.PushFront(&cached{hash: hash, token: t, generation: generation})
	if c.order.Len() > c.size {
		oldest := c.order.Remove(c.order.Back()).(*cached)
		delete(c.entries, oldest.hash)
	}
}
