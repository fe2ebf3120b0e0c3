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
		var written, size int64
		config.Report = func(e observe.LastGoodEvent) {
			if e.Kind == observe.LastGoodWritten {
				written += e.Bytes
				size = e.Bytes
			}
		}
		s := mustOpen(t, config)
		s.Connected(server, true)
		text := strings.Repeat("x", 256<<10)
		keep := func(i int, text string) { s.Keep(key(strconv.Itoa(i%16)), "1", value(t, strconv.Itoa(i%16), text)) }
		for i := range 16 {
			keep(i, text)
		}
		begun := time.Now()
		for i := range 6000 { // a hundred a second
			time.Sleep(10 * time.Millisecond)
			keep(i, text+strconv.Itoa(i))
		}
		took := time.Since(begun)
		most := size + int64(took.Seconds()*maxBytesPerSecond)
		synctest.Wait()
		if written < most/2 || written > most {
			t.Errorf("%d bytes were written in %v, want at most %d", written, took, most)
		}
		// The last change is there after the pace of one file, and one after a quiet time
		// at once.
		time.Sleep(time.Duration(size/maxBytesPerSecond+2) * time.Second)
		synctest.Wait()
		before := written
		time.Sleep(time.Minute)
		synctest.Wait()
		if written != before {
			t.Error("something was written, and nothing has changed")
		}
		keep(0, "last")
		time.Sleep(writeDelay + time.Millisecond)
		synctest.Wait()
		if written == before {
			t.Errorf("nothing was written %v after a change", writeDelay)
		}
	})
}
