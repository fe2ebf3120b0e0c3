package httpmesh

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/retry"
)

// A mirror changes nothing of how the request is hedged and retried, and its copy is
// the client's body, whichever attempt has read it whole.
func TestBU8_HedgesAndRetriesAreTheSameWithAMirror(t *testing.T) {
	t.Parallel()
	const large = 3 * replayLimit
	for _, shadowed := range []bool{false, true} {
		for _, size := range []int{10, replayLimit, large} {
			for _, known := range []bool{false, true} {
				for _, hedge := range []bool{false, true} {
					name := fmt.Sprintf("mirror %t, %d bytes, length known %t, hedged %t", shadowed, size, known, hedge)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
							mirroredReplay{shadowed: shadowed, size: size, known: known, hedge: hedge}.run(t, protocol)
						})
					})
				}
			}
		}
	}
}

type mirroredReplay struct {
	shadowed, known, hedge bool
	size                   int
}

func (c mirroredReplay) run(t *testing.T, protocol func(*discovery.Target)) {
	t.Helper()
	content := make([]byte, c.size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	edits := []func(*discovery.Target){protocol}
	if c.hedge {
		edits = append(edits, hedged)
	} else {
		edits = append(edits, retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx}))
	}
	if c.shadowed {
		edits = append(edits, mirrored())
	}
	var got complete
	var arrived atomic.Int64
	w := newWorld(t, newTarget(edits...), func(_ http.ResponseWriter, r *http.Request) {
		if arrived.Add(1) > 1 {
			got.read(r)
			return
		}
		_, _ = io.CopyN(io.Discard, r.Body, int64(c.size/2))
		if !c.hedge {
			panic(http.ErrAbortHandler)
		}
		time.Sleep(200 * time.Millisecond)
	})
	events := w.mirrorEvents()
	var shadow arrivals
	w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { shadow.record(r) })
	req := newRequest(t.Context(), t, http.MethodPost, paymentURL, bytes.NewReader(content)) // has GetBody
	req.Header.Set("Idempotency-Key", "7")
	if !c.known {
		req.ContentLength = -1
	}
	begin := time.Now()
	resp := w.do(req)
	took := time.Since(begin)
	_ = readAll(t, resp)
	w.idle()
	if resp.StatusCode != http.StatusOK || w.lastCall().Attempts != 2 || c.hedge && took != 50*time.Millisecond {
		t.Errorf("status %d after %v and %d attempts", resp.StatusCode, took, w.lastCall().Attempts)
	}
	if len(got.hashes) != 1 || got.hashes[0] != sum(content) {
		t.Errorf("%d complete bodies, or not the client's", len(got.hashes))
	}
	if !c.shadowed {
		return
	}
	all, reports := shadow.all(), events.all()
	switch {
	case len(reports) != 1:
		t.Errorf("events %+v", reports)
	case c.size > replayLimit:
		if len(all) != 0 || reports[0].Dropped != pipeline.DropTooLarge {
			t.Errorf("%d copies, %+v", len(all), reports)
		}
	case len(all) != 1 || all[0].body != string(content):
		t.Errorf("%d copies, or not the client's body: %+v", len(all), reports)
	}
}
