package xds_test

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// TestV50_GenerationsLeaveNothingBehind: after ten thousand configurations, each with
// other clusters, routes and endpoints, the process holds what the last one needs.
func TestV50_GenerationsLeaveNothingBehind(t *testing.T) { //nolint:paralleltest // it reads what the whole process holds
	synctest.Test(t, func(t *testing.T) {
		c := newControlPlane(t)
		published := watchTarget(c.source())
		c.set(inlineListener("c0"), cluster("c0"), endpoints("c0", 1))
		c.accept()
		generations := func(from, to int) {
			for i := from; i < to; i++ {
				name := "c" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26))
				c.set(cluster(name), endpoints(name, 1+i%60_000), inlineListener(name))
				for url := range c.resources {
					for old := range c.resources[url] {
						if old != name && old != destination {
							delete(c.resources[url], old)
						}
					}
				}
				c.requests = c.requests[:0]
				published.take()
			}
		}
		held := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		generations(0, 500)
		before := held()
		generations(500, 10_000)
		if grown := held() - before; grown > 2<<20 {
			t.Errorf("%d KiB more are held after 9500 configurations", grown>>10)
		}
		c.stop()
	})
}
