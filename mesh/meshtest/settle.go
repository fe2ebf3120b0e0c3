package meshtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

const (
	// quiet is how many questions in a row must have found nothing new. What a
	// resource names is asked for when the resource is taken, goes out before
	// the next question at the latest, and so is there after two of them; twice
	// that is for good measure.
	quiet = 4
	// settleTimeout bounds the wait: it takes milliseconds, or something is
	// wrong.
	settleTimeout = 20 * time.Second
)

// member is one process of the mesh.
type member struct {
	name string
	mesh *mesh.Mesh
	// serves tells an instance from a workload: it calls nobody.
	serves bool

	// news counts the resources that it took or rejected.
	news atomic.Int64
	// streamed tells that it has reported a stream to the control plane.
	streamed atomic.Bool
	// questions counts the questions of settle.
	questions atomic.Int64
}

// hooks are what a member reports to: the World, and then the test's own hooks, which
// may be nil.
func (w *World) hooks(m *member, own *observe.Hooks) *observe.Hooks {
	h := new(observe.Hooks)
	if own != nil {
		*h = *own
	}
	h.StreamChanged = both(func(observe.StreamEvent) { m.streamed.Store(true) }, h.StreamChanged)
	h.ResourceAccepted = both(func(observe.ResourceEvent) { m.news.Add(1) }, h.ResourceAccepted)
	h.ResourceRejected = both(func(e observe.ResourceEvent) {
		w.reject(m, rejection(e.Type, e.Name, e.Err))
		m.news.Add(1)
	}, h.ResourceRejected)
	w.calls.record(m.name, h)
	return h
}

// both is first and then, if it is not nil, next.
func both[E any](first, next func(E)) func(E) {
	if next == nil {
		return first
	}
	return func(e E) {
		first(e)
		next(e)
	}
}

// reject takes notice of what a member rejects: it fails the test, unless it is
// what [World.Try] asks about, or has told.
func (w *World) reject(m *member, reason error) {
	text := reason.Error()
	w.mu.Lock()
	known, trying := w.rejected[text], w.trying
	if trying && !known {
		w.rejected[text] = true
		w.rejections = append(w.rejections, rejectedBy(m, reason))
	}
	w.mu.Unlock()
	if !known && !trying {
		w.tb.Errorf("meshtest: workload %q rejects the configuration: %v", m.name, reason)
	}
}

// settle waits until some of the members have taken what the control plane now says.
func (w *World) settle(which func(*member) bool) {
	w.tb.Helper()
	var members []*member
	w.mu.Lock()
	for m := range w.members {
		if which(m) {
			members = append(members, m)
		}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.settle(ctx) })
	}
	wg.Wait()
	for i, m := range members {
		if errs[i] != nil {
			w.tb.Fatalf("meshtest: workload %q does not take the configuration: %v", m.name, errs[i])
		}
	}
}

// settle asks the control plane, by way of the mesh, for a host that does not
// exist, until nothing has come before the answer for a while. The answer takes
// the same way as every change, through the same queues, so that what was on
// its way before the question has arrived when it is answered.
func (m *member) settle(ctx context.Context) error {
	for calm := 0; calm < quiet; calm++ {
		before := m.news.Load()
		if err := m.ask(ctx); err != nil {
			return err
		}
		if m.news.Load() != before {
			calm = -1
		}
	}
	return nil
}

func (m *member) ask(ctx context.Context) error {
	host := "question-" + strconv.FormatInt(m.questions.Add(1), 10) + ".meshtest.invalid"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := m.mesh.Transport().RoundTrip(req)
	if err == nil {
		return errors.Join(fmt.Errorf("%s exists: status %d", host, resp.StatusCode), resp.Body.Close())
	}
	failure, ok := errors.AsType[*mesh.Error](err)
	switch {
	case ok && failure.Kind == outcome.UnknownHost:
		return nil
	case ok && failure.Kind == outcome.Closed:
		return nil // it left in the meantime
	}
	return err
}
