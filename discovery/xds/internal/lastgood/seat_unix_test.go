//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package lastgood

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

func TestProcessesWithOneIdentityAndDirectoryHaveAFileEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, second := mustOpen(t, setting(dir)), mustOpen(t, setting(dir))
		for i, s := range []*Store{first, second} {
			s.Connected(server, true)
			s.Keep(key("a"), "v", value(t, "a", fmt.Sprint(i)))
			s.Keep(key(fmt.Sprint(i)), "v", value(t, fmt.Sprint(i), ""))
			time.Sleep(5 * time.Second)
			if status := s.Status(); status.Others != i || status.NotWritten != nil || filepath.Base(status.File) != fileName(s.owner, i) {
				t.Errorf("status of the process %d: %+v", i, status)
			}
		}
		if files := filesIn(t, dir); len(files) != 2 {
			t.Errorf("files %q", files)
		}
		// Both go on to write, each its own.
		first.Keep(key("a"), "v", value(t, "a", "last"))
		time.Sleep(5 * time.Second)
		data, err := os.ReadFile(second.Status().File)
		if err != nil || strings.Contains(string(data), "last") {
			t.Errorf("the file of one process is that of the other, or %v", err)
		}
	})
}

func TestAProcessBeginsWithTheFileThatIsNewest(t *testing.T) {
	t.Parallel()
	end := func(s *Store) { s.Stop() }
	tests := []struct {
		name string
		// lives are what becomes of two processes, after a minute each.
		first, second func(s *Store)
		want          []string
	}{
		{"the one that ended last is the second", end, end, []string{"a=1"}},
		{"the second still runs, and wrote when it was told", end, func(*Store) {}, []string{"a=0"}},
		{"the first still runs", func(*Store) {}, end, []string{"a=1"}},
		{"the first lost its control plane at once", func(s *Store) { s.Connected(server, false); s.Stop() }, end, []string{"a=1"}},
		{"the file of the second is damaged", end, func(s *Store) {
			s.Stop()
			if err := os.WriteFile(s.Status().File, []byte("damaged"), 0o600); err != nil {
				panic(err)
			}
		}, []string{"a=0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				stores := []*Store{mustOpen(t, setting(dir)), mustOpen(t, setting(dir))}
				for i, s := range stores {
					s.Connected(server, true)
					s.Keep(key("a"), "v", value(t, "a", fmt.Sprint(i)))
					time.Sleep(5 * time.Second)
				}
				tt.first(stores[0])
				time.Sleep(time.Minute)
				tt.second(stores[1])
				next := mustOpen(t, setting(dir))
				if got := found(t, next); !slices.Equal(got, tt.want) {
					t.Errorf("found %q, want %q", got, tt.want)
				}
				if status := next.Status(); status.Refused != nil || status.Saved.IsZero() {
					t.Errorf("status %+v", status)
				}
			})
		})
	}
}

func TestADirectoryWithTooManyProcessesIsReadAndNotWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		keep(t, setting(dir), "a=1")
		stores := make([]*Store, maxSeats)
		for i := range stores {
			stores[i] = mustOpen(t, setting(dir))
		}
		var told reports
		config := setting(dir)
		config.Report = told.add
		s := mustOpen(t, config)
		if got := found(t, s); !slices.Equal(got, []string{"a=1"}) {
			t.Errorf("found %q", got)
		}
		err := s.Status().NotWritten
		if err == nil || !strings.Contains(err.Error(), "64 other processes with this identity keep theirs in directory") {
			t.Errorf("not written: %v", err)
		}
		// A process that ends makes room.
		stores[7].Stop()
		s.Connected(server, true)
		s.Keep(key("a"), "v", value(t, "a", "2"))
		time.Sleep(5 * time.Second)
		if status := s.Status(); status.NotWritten != nil || status.Others != 7 {
			t.Errorf("status %+v", status)
		}
		if events := told.take(); len(events) != 2 || events[0].Kind != observe.LastGoodNotWritten || events[1].Kind != observe.LastGoodWritten {
			t.Errorf("events %+v", events)
		}
	})
}

func TestLocksOfNobodyAreSwept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	held := mustOpen(t, setting(dir))
	other := setting(dir)
	other.Owner = "them"
	gone := mustOpen(t, other)
	name := gone.dir.seat.lock.Name()
	gone.Stop()
	long := time.Now().Add(-3 * time.Hour)
	for _, path := range []string{name, held.dir.seat.lock.Name()} {
		if err := os.Chtimes(filepath.Join(dir, filepath.Base(path)), long, long); err != nil {
			t.Fatal(err)
		}
	}
	next := mustOpen(t, setting(dir))
	if next.Status().Others != 1 {
		t.Errorf("the lock of a process that runs was swept: %+v", next.Status())
	}
	if _, err := os.Stat(filepath.Join(dir, filepath.Base(name))); err == nil {
		t.Error("the lock of a process that does not run any more is there")
	}
}

// TestMain is also the other process.
func TestMain(m *testing.M) {
	dir := os.Getenv("LASTGOOD_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := Open(setting(dir))
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, s.Status().Others)
	select {} // until it is killed
}

// Alone: until a child has become another program it has the locks of this process, and
// the places that other tests leave are not free.
func TestAProcessThatIsKilledLeavesItsPlace(t *testing.T) { //nolint:paralleltest // as above
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), "LASTGOOD_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "0\n" {
			t.Errorf("the process says %q, %v", line, err)
		}
		s := mustOpen(t, setting(dir))
		if got := s.Status().Others; got != 1 {
			t.Errorf("%d other processes, want 1", got)
		}
		s.Stop()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
}
