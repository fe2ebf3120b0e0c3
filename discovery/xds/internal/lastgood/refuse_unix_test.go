//go:build unix

package lastgood

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

func TestAFileThatCannotBeTrustedIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	rewrite := func(change func([]byte) []byte) func(*testing.T, *Config, string) {
		return func(t *testing.T, _ *Config, path string) {
			t.Helper()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name  string
		spoil func(t *testing.T, config *Config, path string)
		want  string
	}{
		{"an empty file", rewrite(func([]byte) []byte { return nil }), "it is no file of last known good configuration"},
		{"another file", rewrite(func([]byte) []byte { return []byte("hello") }), "it is no file of last known good configuration"},
		{"the first half", rewrite(func(b []byte) []byte { return b[:len(b)/2] }), "the checksum is wrong"},
		{"the beginning", rewrite(func(b []byte) []byte { return b[:len(magic)+10] }), "something is missing"},
		{"one byte more", rewrite(func(b []byte) []byte { return append(b, 0) }), "the checksum is wrong"},
		{"a bit that was flipped", rewrite(func(b []byte) []byte { b[len(b)/2] ^= 4; return b }), "the checksum is wrong"},
		{"a format of the future", rewrite(func(b []byte) []byte {
			binary.LittleEndian.PutUint16(b[len(magic):], 2)
			return b
		}), "its format is version 2, want 1"},
		{"that of another workload", func(t *testing.T, config *Config, path string) {
			config.Owner, config.Label = "them", `node "them"`
			mine := fileName(sha(config.Owner), 0)
			if err := os.Rename(path, filepath.Join(config.Dir, mine)); err != nil {
				t.Fatal(err)
			}
		}, `it is that of node "us", and this is node "them"`},
		{"one that is too old", func(*testing.T, *Config, string) { time.Sleep(2 * time.Hour) },
			"the control plane was last heard of 2h0m0s before, more than the 1h0m0s that are allowed"},
		{"one of tomorrow", func(t *testing.T, config *Config, path string) {
			later := snapshot{owner: sha(config.Owner), label: config.Label, saved: time.Now().Add(24 * time.Hour)}
			var b bytes.Buffer
			if err := encode(&b, &later); err != nil {
				t.Fatal(err)
			}
			rewrite(func([]byte) []byte { return b.Bytes() })(t, config, path)
		}, "which has not come yet"},
		{"one that is too large", func(_ *testing.T, config *Config, _ string) { config.MaxBytes = 10 }, "more than the 10 that are allowed"},
		{"one that others may write", func(t *testing.T, _ *Config, path string) {
			if err := os.Chmod(path, 0o620); err != nil {
				t.Fatal(err)
			}
		}, "so that others may write to it: run chmod 600 on it"},
		{"a link", func(t *testing.T, _ *Config, path string) {
			if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
				t.Fatal(err)
			}
		}, "it is not a regular file"},
		{"a pipe", func(t *testing.T, _ *Config, path string) {
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, "it is not a regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var told reports
				config := setting(t.TempDir())
				config.Report = told.add
				keep(t, config, "a=1", "b=1")
				tt.spoil(t, &config, theFile(t, config.Dir))
				told.take()
				s := mustOpen(t, config)
				if got := found(t, s); len(got) > 0 {
					t.Errorf("%q of it is used", got)
				}
				err := s.Status().Refused
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "is not used") {
					t.Errorf("refused: %v, want %q", err, tt.want)
				}
				if events := told.take(); len(events) != 1 || events[0].Kind != observe.LastGoodRefused {
					t.Errorf("events %+v", events)
				}
				if tt.name == "one that is too large" {
					return
				}
				// The next file takes its place.
				s.Stop()
				keep(t, config, "c=1")
				if got := found(t, mustOpen(t, config)); !slices.Equal(got, []string{"c=1"}) {
					t.Errorf("found %q", got)
				}
			})
		})
	}
}

// Whatever the moment at which a process is killed: the next one finds what the
// last whole write left, or the one before.
func TestAProcessKilledWhileItWritesLeavesAWholeFile(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 200<<10) // several writes
	done := false
	kill := 0
	for ; !done; kill++ {
		synctest.Test(t, func(t *testing.T) {
			config := setting(t.TempDir())
			keep(t, config, "a=old", "b=old")
			s := mustOpen(t, config)
			killed := &failing{files: s.dir, after: kill, err: errors.New("killed")}
			s.files = killed
			s.Connected(server, true)
			s.Keep(key("a"), "v2", value(t, "a", "new"))
			s.Keep(key("b"), "v2", value(t, "b", large))
			s.Stop()
			next := mustOpen(t, config)
			got := found(t, next)
			if len(got) == 2 && got[1] == "b="+large {
				got[1] = "b=new"
			}
			renamed := slices.Contains(killed.done, "rename")
			want := []string{"a=old", "b=old"}
			if renamed {
				want = []string{"a=new", "b=new"}
			}
			if !slices.Equal(got, want) || next.Status().Refused != nil {
				t.Errorf("killed after %q: found %.40q (%v), want %q", killed.done, got, next.Status().Refused, want)
			}
			done = slices.Contains(killed.done, "sync directory")
		})
	}
	if kill < 8 {
		t.Errorf("only %d points at which to kill", kill)
	}
}
