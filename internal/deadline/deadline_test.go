package deadline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errOurs    = errors.New("our time is up")
	errCallers = errors.New("the caller lost interest")
)

type nameKey struct{}

// newTimeout is what a call has, beside what the standard library has for it.
func newTimeout(parent context.Context, d time.Duration) (*Context, context.Context, context.CancelFunc) {
	limit := time.Now().Add(d)
	ours := new(Context)
	ours.Start(parent, limit, errOurs)
	std, cancel := context.WithDeadlineCause(parent, limit, errOurs)
	return ours, std, cancel
}

// answers is all that a context says.
func answers(ctx context.Context) string {
	deadline, bounded := ctx.Deadline()
	done := false
	select {
	case <-ctx.Done():
		done = true
	default:
	}
	return fmt.Sprint(done, ctx.Err(), context.Cause(ctx), deadline, bounded, ctx.Value(nameKey{}))
}

func TestItAnswersAsTheStandardOne(t *testing.T) {
	t.Parallel()
	const second = time.Second
	parents := []struct {
		name string
		make func() (context.Context, context.CancelCauseFunc)
	}{
		{"no end of its own", func() (context.Context, context.CancelCauseFunc) {
			return context.WithValue(context.Background(), nameKey{}, "ada"), func(error) {}
		}},
		{"can be canceled", func() (context.Context, context.CancelCauseFunc) {
			return context.WithCancelCause(context.Background())
		}},
		{"a value in between", func() (context.Context, context.CancelCauseFunc) {
			ctx, cancel := context.WithCancelCause(context.Background())
			return context.WithValue(ctx, nameKey{}, "ada"), cancel
		}},
		{"an earlier deadline", func() (context.Context, context.CancelCauseFunc) {
			ctx, cancel := context.WithTimeoutCause(context.Background(), second, errCallers)
			return ctx, func(error) { cancel() }
		}},
		{"a later deadline", func() (context.Context, context.CancelCauseFunc) {
			ctx, cancel := context.WithTimeoutCause(context.Background(), 3*second, errCallers)
			return ctx, func(error) { cancel() }
		}},
	}
	events := []struct {
		name  string
		event func(stop func(), cancel context.CancelCauseFunc)
	}{
		{"nothing happens", func(func(), context.CancelCauseFunc) {}},
		{"the call ends", func(stop func(), _ context.CancelCauseFunc) { stop() }},
		{"the call ends twice", func(stop func(), _ context.CancelCauseFunc) { stop(); stop() }},
		{"the caller cancels", func(_ func(), cancel context.CancelCauseFunc) { cancel(errCallers) }},
		{"time is up", func(func(), context.CancelCauseFunc) { time.Sleep(2 * second) }},
		{"half of the time is up", func(func(), context.CancelCauseFunc) { time.Sleep(second) }},
	}
	for _, parent := range parents {
		for _, e := range events {
			for _, asked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, asked before: %v", parent.name, e.name, asked), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						ctx, cancel := parent.make()
						defer cancel(nil)
						ours, std, cancelStd := newTimeout(ctx, 2*second)
						defer cancelStd()
						defer ours.Stop()
						check := func() {
							synctest.Wait()
							if got, want := answers(ours), answers(std); got != want {
								t.Errorf("it says %s\nwant %s", got, want)
							}
						}
						if asked {
							check()
						}
						e.event(func() { ours.Stop(); cancelStd() }, cancel)
						check()
						// The first end is the only one.
						cancel(errors.New("too late"))
						time.Sleep(5 * second)
						ours.Stop()
						cancelStd()
						check()
					})
				})
			}
		}
	}
}

// Whichever question is asked first makes the real context; none of the answers
// may depend on which it was.
func TestEveryFirstQuestionLearnsOfTheEnd(t *testing.T) {
	t.Parallel()
	questions := map[string]func(*Context) bool{
		"Err":   func(c *Context) bool { return errors.Is(c.Err(), context.DeadlineExceeded) },
		"Cause": func(c *Context) bool { return errors.Is(context.Cause(c), errOurs) },
		"Done": func(c *Context) bool {
			<-c.Done()
			return true
		},
		"a child": func(c *Context) bool {
			child, cancel := context.WithCancel(c)
			defer cancel()
			return errors.Is(child.Err(), context.DeadlineExceeded) && errors.Is(context.Cause(child), errOurs)
		},
		"a function for its end": func(c *Context) bool {
			ran := make(chan struct{})
			context.AfterFunc(c, func() { close(ran) })
			<-ran
			return true
		},
	}
	for name, ask := range questions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ours, _, cancel := newTimeout(t.Context(), time.Second)
				defer cancel()
				time.Sleep(time.Second)
				if !ask(ours) {
					t.Errorf("the end did not show: %s", answers(ours))
				}
			})
		})
	}
}

func TestNobodyAskedAndNothingWasMade(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const runs = 100
	calls := make([]Context, runs+1) // AllocsPerRun runs once more
	limit := time.Now().Add(time.Hour)
	allocations := testing.AllocsPerRun(runs, func() {
		c := &calls[0]
		calls = calls[1:]
		c.Start(ctx, limit, errOurs)
		_, _ = c.Deadline()
		_ = c.Value(nameKey{})
		_ = c.Err()
		c.Stop()
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestChildrenCostNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, _, cancel := newTimeout(t.Context(), time.Second)
		defer cancel()
		before := runtime.NumGoroutine()
		var children []context.Context
		for range 1000 {
			child, cancel := context.WithCancel(context.WithValue(ours, nameKey{}, "child"))
			defer cancel()
			children = append(children, child)
		}
		if after := runtime.NumGoroutine(); after > before+100 { // other tests have goroutines too
			t.Errorf("1000 children: %d goroutines, before %d", after, before)
		}
		ours.Stop()
		for _, child := range children {
			if !errors.Is(child.Err(), context.Canceled) {
				t.Fatalf("a child goes on: %v", child.Err())
			}
		}
	})
}

// Everything at once; in the end all answers agree.
func TestRacingQuestionsAgree(t *testing.T) {
	t.Parallel()
	const seed = 11
	for round := range uint64(200) {
		parent, cancel := context.WithCancelCause(t.Context())
		ours := new(Context)
		ours.Start(parent, time.Now().Add(time.Duration(round%5)*20*time.Microsecond), errOurs)
		var wg sync.WaitGroup
		ended := make([]error, 8)
		for i := range ended {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(seed, round*100+uint64(i)))
				for ours.Err() == nil {
					switch random.IntN(6) {
					case 0:
						child, cancel := context.WithCancel(ours)
						_ = child.Err()
						cancel()
					case 1:
						stop := context.AfterFunc(ours, func() {})
						stop()
					case 2:
						_ = ours.Value(nameKey{})
						_ = ours.String()
					case 3:
						select {
						case <-ours.Done():
						case <-time.After(time.Microsecond):
						}
					case 4:
						if random.IntN(20) == 0 {
							ours.Stop()
						}
					case 5:
						if random.IntN(20) == 0 {
							cancel(errCallers)
						}
					}
				}
				<-ours.Done()
				ended[i] = fmt.Errorf("%w, %w", ours.Err(), context.Cause(ours))
			})
		}
		wg.Wait()
		cancel(nil)
		for _, err := range ended {
			if err.Error() != ended[0].Error() {
				t.Fatalf("seed %d, round %d: %q and %q", seed, round, err, ended[0])
			}
		}
	}
}
