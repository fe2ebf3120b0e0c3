package lastgood

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

func TestALargeConfigurationThatChangesAllTheTimeIsWrittenAtABoundedRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(t.TempDir())
		config.MaxBytes = 64 << 20
		var told reports
		config.Report = told.add
		var written, size int64
		look := func() {
			synctest.Wait()
			for _, e := range told.take() {
				if e.Kind == observe.LastGoodWritten {
					written += e.Bytes
					size = e.Bytes
				}
			}
		}
		s := mustOpen(t, config)
		s.Connected(server, true)
		text := strings.Repeat("x", 128<<10)
		keep := func(i int, text string) { s.Keep(key(strconv.Itoa(i%16)), "1", value(t, strconv.Itoa(i%16), text)) }
		for i := range 16 {
			keep(i, text)
		}
		begun := time.Now()
		for i := range 1200 {
			time.Sleep(50 * time.Millisecond)
			keep(i, text+strconv.Itoa(i))
		}
		took := time.Since(begun)
		look()
		most := size + int64(took.Seconds()*maxBytesPerSecond)
		if written < most/2 || written > most {
			t.Errorf("%d bytes were written in %v, want at most %d", written, took, most)
		}
		// The last change is there after the pace of one file, and one after a quiet time
		// at once.
		time.Sleep(time.Duration(size/maxBytesPerSecond+2) * time.Second)
		look()
		before := written
		time.Sleep(time.Minute)
		look()
		if written != before {
			t.Error("something was written, and nothing has changed")
		}
		keep(0, "last")
		time.Sleep(writeDelay + time.Millisecond)
		look()
		if written == before {
			t.Errorf("nothing was written %v after a change", writeDelay)
		}
	})
}
