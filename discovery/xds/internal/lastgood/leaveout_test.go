package lastgood

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

func TestAControlPlaneWithTooMuchIsLeftOutAndTheOthersAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(t.TempDir())
		config.MaxBytes = 64 << 10
		config.Servers = func(k Key) []string {
			of, _, _ := strings.Cut(k.Name, "/")
			return []string{of + ".test"}
		}
		var told reports
		config.Report = told.add
		s := mustOpen(t, config)
		keep := func(name, text string) { s.Keep(key(name), "1", value(t, name, text)) }
		for _, of := range []string{"near", "far", "third"} {
			s.Connected(of+".test", true)
			keep(of+"/a", "x")
		}
		for i := range 100 {
			keep(fmt.Sprint("far/", i), strings.Repeat("x", 1<<10))
		}
		time.Sleep(10 * time.Second)
		keep("near/b", "x")
		keep("far/101", "x")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		var left []string
		for _, e := range told.take() {
			if e.Kind == observe.LastGoodNotWritten {
				left = append(left, e.Err.Error())
			}
		}
		if len(left) != 1 || !strings.Contains(left[0], "is without what comes from far.test: ") {
			t.Errorf("told %q", left)
		}
		if got := s.Status(); got.NotWritten == nil || got.Written.IsZero() {
			t.Errorf("status %+v", got)
		}
		again := mustOpen(t, config)
		for name, want := range map[string]bool{"near/a": true, "near/b": true, "third/a": true, "far/a": false, "far/1": false} {
			if _, ok := again.Kept(key(name)); ok != want {
				t.Errorf("%s is on disk: %v", name, ok)
			}
		}
		for i := range 100 {
			s.Drop(key(fmt.Sprint("far/", i)))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := s.Status(); got.NotWritten != nil {
			t.Errorf("status %+v", got)
		}
	})
}
