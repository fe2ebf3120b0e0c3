package lastgood

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/inboardmesh/inboard/observe"
)

func TestTheNextProcessFindsWhatWasKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(filepath.Join(t.TempDir(), "new"))
		before := time.Now()
		keep(t, config, "a=1", "b=1")
		s := mustOpen(t, config)
		if got := found(t, s); !slices.Equal(got, []string{"a=1", "b=1"}) {
			t.Errorf("found %q", got)
		}
		r, ok := s.Kept(key("a"))
		if !ok || r.Version != "v1" || r.Key != key("a") || !r.Seen.Equal(before) {
			t.Errorf("kept %+v, %v", r, ok)
		}
		if status := s.Status(); !status.Saved.Equal(before) || status.Refused != nil || status.NotWritten != nil || status.File != theFile(t, config.Dir) {
			t.Errorf("status %+v", status)
		}
		info, err := os.Stat(config.Dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("directory %v, %v", info.Mode(), err)
		}
		info, err = os.Stat(theFile(t, config.Dir))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file %v, %v", info.Mode(), err)
		}
	})
}

func TestNothingIsFoundWhereNothingWasKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told reports
		config := setting(t.TempDir())
		config.Report = told.add
		s := mustOpen(t, config)
		if _, ok := s.Kept(key("a")); ok || s.Status().Refused != nil || len(told.take()) > 0 {
			t.Errorf("status %+v", s.Status())
		}
	})
}

func TestWhatTheControlPlaneSendsIsNotLentAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(t.TempDir())
		keep(t, config, "a=1", "b=1", "c=1")
		s := mustOpen(t, config)
		s.Connected(server, true)
		s.Keep(key("a"), "v2", value(t, "a", "2"))
		s.Drop(key("b"))
		for name, want := range map[string]bool{"a": false, "b": false, "c": true} {
			if _, ok := s.Kept(key(name)); ok != want {
				t.Errorf("%s is lent: %v", name, ok)
			}
		}
		s.Stop()
		if got := found(t, mustOpen(t, config)); !slices.Equal(got, []string{"a=2", "c=1"}) {
			t.Errorf("found %q", got)
		}
	})
}

func TestWhatTheControlPlaneDoesNotStandByGrowsOld(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		life func(*Store)
		want []string
	}{
		{"until it is too old", func(*Store) { time.Sleep(50 * time.Minute) }, []string{"a=1", "b=1"}},
		{"and is over then, although the file is new", func(*Store) { time.Sleep(61 * time.Minute) }, []string{"b=1"}},
		{"unless it is sent again", func(s *Store) {
			time.Sleep(50 * time.Minute)
			s.Keep(key("a"), "v2", value(t, "a", "1"))
			time.Sleep(50 * time.Minute)
		}, []string{"a=1", "b=1"}},
		{"and no more because nobody watches it", func(s *Store) {
			time.Sleep(55 * time.Minute)
			s.Release(key("a"))
			time.Sleep(6 * time.Minute)
		}, []string{"b=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				config := setting(t.TempDir())
				s := mustOpen(t, config)
				s.Connected(server, true)
				s.Keep(key("a"), "v1", value(t, "a", "1"))
				s.Keep(key("b"), "v1", value(t, "b", "1"))
				s.Disown(key("a"))
				s.Disown(key("unknown"))
				tt.life(s)
				s.Stop()
				s.Disown(key("b")) // too late
				if got := found(t, mustOpen(t, config)); !slices.Equal(got, tt.want) {
					t.Errorf("found %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestAFileThatIsYoungEnoughMayHoldWhatIsTooOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(t.TempDir())
		s := mustOpen(t, config)
		s.Connected(server, true)
		s.Keep(key("a"), "v1", value(t, "a", "1"))
		s.Keep(key("b"), "v1", value(t, "b", "1"))
		s.Disown(key("a"))
		time.Sleep(45 * time.Minute)
		s.Stop()
		time.Sleep(45 * time.Minute)
		if got := found(t, mustOpen(t, config)); !slices.Equal(got, []string{"b=1"}) {
			t.Errorf("found %q", got)
		}
	})
}

func TestChangesAreWrittenTogetherAndAfterAMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told reports
		config := setting(t.TempDir())
		config.Report = told.add
		s := mustOpen(t, config)
		s.Connected(server, true)
		for i := range 600 { // for a minute
			s.Keep(key("a"), "v", value(t, "a", fmt.Sprint(i)))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		written := told.take()
		if len(written) < 10 || len(written) > 62 {
			t.Errorf("%d files for 600 changes in a minute", len(written))
		}
		if got := found(t, mustOpen(t, setting(config.Dir))); !slices.Equal(got, []string{"a=599"}) {
			t.Errorf("found %q: the last state must win", got)
		}
	})
}

func TestAnAgeIsThatOfTheLastWordOfTheControlPlane(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		life func(s *Store)
		ok   bool
	}{
		{"a process that was connected until it ended", func(s *Store) { time.Sleep(10 * time.Hour) }, true},
		{"a process that was killed while it was connected", func(s *Store) {
			time.Sleep(10*time.Hour + time.Minute)
			synctest.Wait()
			s.files = &failing{files: s.files, err: errNoSpace} // its last write does not happen
		}, true},
		{"a process whose control plane was away for a while", func(s *Store) {
			s.Connected(server, false)
			time.Sleep(50 * time.Minute)
		}, true},
		{"a process whose control plane was away for long", func(s *Store) {
			s.Connected(server, false)
			time.Sleep(61 * time.Minute)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				config := setting(t.TempDir())
				s := mustOpen(t, config)
				s.Connected(server, true)
				s.Keep(key("a"), "v", value(t, "a", "1"))
				tt.life(s)
				s.Stop()
				s = mustOpen(t, config)
				if _, ok := s.Kept(key("a")); ok != tt.ok {
					t.Errorf("found: %v, %v", ok, s.Status().Refused)
				}
				if err := s.Status().Refused; !tt.ok && (err == nil || !strings.Contains(err.Error(), "the control plane was last heard of 1h1m0s before, more than the 1h0m0s that are allowed")) {
					t.Errorf("refused: %v", err)
				}
			})
		})
	}
}

func TestWhatNobodyAsksForAnyMoreAgesAndGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(t.TempDir())
		keep(t, config, "a=1", "b=1")
		for range 3 { // each of these processes is told a and never asks for b
			s := mustOpen(t, config)
			s.Connected(server, true)
			s.Keep(key("a"), "v", value(t, "a", "1"))
			time.Sleep(25 * time.Minute)
			s.Stop()
		}
		if got := found(t, mustOpen(t, config)); !slices.Equal(got, []string{"a=1"}) {
			t.Errorf("found %q", got)
		}
	})
}

func TestWhatIsLeftBeforeTheEndIsThereAtTheNextStart(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration][]string{9 * time.Minute: {"a=1", "b=1"}, 11 * time.Minute: {"b=1"}} {
		synctest.Test(t, func(t *testing.T) {
			config := setting(t.TempDir())
			s := mustOpen(t, config)
			s.Connected(server, true)
			s.Keep(key("a"), "v", value(t, "a", "1"))
			s.Keep(key("b"), "v", value(t, "b", "1"))
			s.Release(key("a")) // a listener that is closed
			time.Sleep(after)
			s.Stop()
			if got := found(t, mustOpen(t, config)); !slices.Equal(got, want) {
				t.Errorf("found %q after %v, want %q", got, after, want)
			}
		})
	}
}

// A process that is told nothing new writes nothing else: what it left goes all the
// same.
func TestWhatWasLeftLongAgoIsNotHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(t.TempDir())
		s := mustOpen(t, config)
		s.Connected(server, true)
		s.Keep(key("a"), "v", value(t, "a", "1"))
		s.Keep(key("b"), "v", value(t, "b", "1"))
		s.Release(key("a"))
		time.Sleep(linger)
		if got := found(t, s); !slices.Equal(got, []string{"a=1", "b=1"}) {
			t.Errorf("holds %q before the time is over", got)
		}
		time.Sleep(2 * time.Minute)
		if got := found(t, s); !slices.Equal(got, []string{"b=1"}) {
			t.Errorf("holds %q", got)
		}
		if got := found(t, mustOpen(t, setting(config.Dir))); !slices.Equal(got, []string{"b=1"}) {
			t.Errorf("found %q", got)
		}
	})
}

func TestAFileStaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told reports
		config := setting(t.TempDir())
		config.MaxBytes = 4 << 10
		config.Report = told.add
		large := strings.Repeat("x", 1000)
		keep(t, config, "a="+large, "b="+large)
		time.Sleep(time.Minute)
		s := mustOpen(t, config)
		s.Connected(server, true)
		for _, name := range []string{"c", "d", "e"} {
			s.Keep(key(name), "v", value(t, name, large))
		}
		time.Sleep(2 * time.Second)
		// What was not asked for makes room.
		if got := found(t, mustOpen(t, setting(config.Dir))); len(got) != 3 || !strings.HasPrefix(got[0], "c=") {
			t.Errorf("found %d resources", len(got))
		}
		told.take()
		s.Keep(key("f"), "v", value(t, "f", large))
		time.Sleep(10 * time.Minute)
		events := told.take()
		if len(events) != 1 || events[0].Kind != observe.LastGoodNotWritten || !strings.Contains(events[0].Err.Error(), "more than the 4096 that are allowed") {
			t.Errorf("events %+v, want one that says that it is too large", events)
		}
		if s.Status().NotWritten == nil {
			t.Error("the status does not say so")
		}
		info, err := os.Stat(theFile(t, config.Dir))
		if err != nil || info.Size() > config.MaxBytes {
			t.Errorf("file %v, %v", info, err)
		}
		s.Drop(key("f"))
		time.Sleep(2 * time.Second)
		if s.Status().NotWritten != nil {
			t.Errorf("status %+v", s.Status())
		}
	})
}

func TestADiskThatFailsIsReportedOnceAndTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told reports
		config := setting(t.TempDir())
		config.Report = told.add
		s := mustOpen(t, config)
		disk := &failing{files: s.dir, err: errNoSpace}
		s.files = disk
		s.Connected(server, true)
		s.Keep(key("a"), "v", value(t, "a", "1"))
		time.Sleep(5 * time.Minute)
		events := told.take()
		if len(events) != 1 || events[0].Kind != observe.LastGoodNotWritten || !errors.Is(events[0].Err, io.ErrShortWrite) {
			t.Errorf("events %+v", events)
		}
		disk.recover()
		time.Sleep(2 * time.Minute)
		if events := told.take(); len(events) != 1 || events[0].Kind != observe.LastGoodWritten || events[0].Resources != 1 || events[0].Bytes == 0 {
			t.Errorf("events %+v, want one file", events)
		}
		if status := s.Status(); status.NotWritten != nil || status.Written.IsZero() {
			t.Errorf("status %+v", status)
		}
	})
}

func TestADirectoryThatCannotBeMadeIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told reports
		blocking := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(blocking, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		config := setting(filepath.Join(blocking, "dir"))
		config.Report = told.add
		s := mustOpen(t, config)
		s.Connected(server, true)
		s.Keep(key("a"), "v", value(t, "a", "1"))
		s.Drop(key("a"))
		if _, ok := s.Kept(key("a")); ok {
			t.Error("something is kept")
		}
		if events := told.take(); len(events) != 1 || events[0].Kind != observe.LastGoodNotWritten || s.Status().NotWritten == nil {
			t.Errorf("events %+v", events)
		}
		s.Stop()
		s.Stop()
	})
}

func TestADirectoryThatIsGoneIsReportedOnceAndMadeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told reports
		config := setting(filepath.Join(t.TempDir(), "parent", "dir"))
		config.Report = told.add
		s := mustOpen(t, config)
		if err := os.RemoveAll(filepath.Dir(config.Dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Dir(config.Dir), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.Connected(server, true)
		s.Keep(key("a"), "v", value(t, "a", "1"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		events := told.take()
		if len(events) > 2 || events[0].Kind != observe.LastGoodNotWritten {
			t.Errorf("events %+v, want one for each reason", events)
		}
		if err := os.Remove(filepath.Dir(config.Dir)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if events := told.take(); len(events) != 1 || events[0].Kind != observe.LastGoodWritten {
			t.Errorf("events %+v, want one file", events)
		}
		s.Stop()
		if got := found(t, mustOpen(t, setting(config.Dir))); !slices.Equal(got, []string{"a=1"}) {
			t.Errorf("found %q", got)
		}
	})
}

func TestADirectoryOfOthersIsAnError(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o777, 0o770, 0o722} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(setting(dir)); err == nil || !strings.Contains(err.Error(), "so that others may write to it: run chmod go-w on it") {
			t.Errorf("mode %o: %v, %v", mode, s, err)
		}
	}
}

func TestNoSecretIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := setting(t.TempDir())
		const private = "-----BEGIN PRIVATE KEY-----"
		inline := &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: private}}
		bytes := &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(private)}}
		path := &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: "/key.pem"}}
		s := mustOpen(t, config)
		s.Connected(server, true)
		s.Keep(key("inline"), "v", secret(t, "inline", inline))
		s.Keep(key("bytes"), "v", secret(t, "bytes", bytes))
		s.Keep(key("path"), "v", secret(t, "path", path))
		s.Keep(key("none"), "v", value(t, "none", ""))
		s.Keep(Key{TypeURL: secretURL, Name: "default"}, "v", []byte{})
		s.Keep(key("damaged"), "v", []byte{0xff})
		s.Stop()
		if got := found(t, mustOpen(t, config)); !slices.Equal(got, []string{"none=", "path="}) {
			t.Errorf("found %q", got)
		}
		data, err := os.ReadFile(theFile(t, config.Dir))
		if err != nil || strings.Contains(string(data), private) {
			t.Errorf("the file holds a key, or %v", err)
		}
	})
}

func TestFilesThatNobodyFinishedOrComesBackForAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{
		temporaryPrefix + "OLD" + suffix: 2 * time.Hour,
		temporaryPrefix + "NEW" + suffix: time.Minute,
		"0123456789abcdef" + suffix:      26 * time.Hour,
		"fedcba9876543210" + suffix:      20 * time.Hour,
		"other":                          1000 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	config := setting(dir)
	config.MaxAge = 24 * time.Hour
	mustOpen(t, config)
	left := filesIn(t, dir)
	if want := []string{temporaryPrefix + "NEW" + suffix, "fedcba9876543210" + suffix, "other"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}

// BenchmarkWrite writes 10,000 clusters of which one has changed: what a change
// costs beside the calls.
func BenchmarkWrite(b *testing.B) {
	config := setting(b.TempDir())
	config.MaxBytes = 64 << 20
	s := mustOpen(b, config)
	s.Connected(server, true)
	text := strings.Repeat("x", 2500)
	for i := range 10_000 {
		name := fmt.Sprintf("outbound|8080||service-%d.shop.svc.cluster.local", i)
		s.Keep(key(name), "0123456789abcdef", value(b, name, text))
	}
	s.Stop()
	s.frozen, s.files = false, nil
	changed := value(b, "a", text)
	b.ReportAllocs()
	for b.Loop() {
		s.Keep(key("a"), "v", changed)
		s.write()
	}
}
