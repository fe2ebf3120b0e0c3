package meshtest

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/observe"
)

// failing is a test that may fail: it keeps what it failed of.
type failing struct {
	*testing.T
	texts []string
}

func (f *failing) Errorf(format string, args ...any) {
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

func (f *failing) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

func TestAConfigurationThatAWorkloadRejectsFailsTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := &failing{T: t}
		w := New(tb)
		w.Service("payment.shop")
		for m := range w.members {
			w.hooks(m, nil).ResourceRejected(observe.ResourceEvent{Type: "Cluster", Name: "a", Err: errors.New("lb_policy: unknown")})
		}
		w.Apply("")
		w.Apply("")
		want := `meshtest: workload "payment" rejects the configuration: Cluster "a": lb_policy: unknown`
		if got := strings.Join(tb.texts, "\n"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestAControlPlaneThatIsAwayFailsTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := &failing{T: t}
		w := New(tb)
		w.Service("payment.shop")
		if err := w.server.Close(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Apply("")
		}()
		<-done
		want := `meshtest: workload "payment" does not take the configuration: `
		if got := strings.Join(tb.texts, "\n"); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
