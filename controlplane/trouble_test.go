package controlplane

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Whatever becomes of what is read: what was in force stays so, the reason is in the
// status, nothing of a change beside it is taken by itself, and all of it is when the
// trouble is over. A server does not begin with the rest of it.
func TestWhatCannotBeReadKeepsWhatIsServed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links and permissions")
	}
	ledger := func(dir string) string { return filepath.Join(dir, "ledger.yaml") }
	remove := func(dir string) error { return os.Remove(ledger(dir)) }
	link := func(target string) func(string) error {
		return func(dir string) error { return os.Symlink(target, ledger(dir)) }
	}
	root := os.Geteuid() == 0
	var asked []string // what root is not
	for _, tt := range []struct {
		name        string
		begin, over func(dir string) error
		want        string
		permissions bool // root is asked for none
	}{
		{name: "a link to nowhere", begin: link("nowhere.yaml"), over: remove, want: "ledger.yaml: no such file"},
		{name: "a link to itself", begin: link("ledger.yaml"), over: remove, want: "ledger.yaml: too many levels of symbolic links"},
		{name: "a link to a directory", begin: link("."), over: remove, want: `"ledger.yaml" is not a regular file`},
		{name: "a file that may not be read", permissions: true, over: remove, want: "ledger.yaml: permission denied",
			begin: func(dir string) error { return os.WriteFile(ledger(dir), service("ledger", "10.0.1.1").Data, 0) }},
		{name: "a file that is too large", over: remove, want: `"ledger.yaml" has more than 33554432 bytes: split it`,
			begin: func(dir string) error {
				half := filepath.Join(dir, ".ledger.swp") // nobody reads it before it is large
				if err := os.WriteFile(half, nil, 0o600); err != nil {
					return err
				}
				if err := os.Truncate(half, 32<<20+1); err != nil {
					return err
				}
				return os.Rename(half, ledger(dir))
			}},
		{name: "a directory below that may not be read", permissions: true, want: "below: permission denied",
			begin: func(dir string) error { return os.Mkdir(filepath.Join(dir, "below"), 0) },
			over:  func(dir string) error { return os.Remove(filepath.Join(dir, "below")) }},
		{name: "the directory may not be read", permissions: true, want: "permission denied",
			begin: func(dir string) error { return os.Chmod(dir, 0o300) },
			over:  func(dir string) error { return os.Chmod(dir, 0o700) }},
		{name: "a file in place of the directory", want: "not a directory",
			begin: func(dir string) error {
				if err := os.Rename(dir, dir+".away"); err != nil {
					return err
				}
				return os.WriteFile(dir, service("ledger", "10.0.1.1").Data, 0o600)
			},
			over: func(dir string) error {
				if err := os.Remove(dir); err != nil {
					return err
				}
				return os.Rename(dir+".away", dir)
			}},
	} {
		if tt.permissions && root {
			asked = append(asked, tt.name)
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			dir := filepath.Join(t.TempDir(), "config")
			must(os.Mkdir(dir, 0o700))
			put(t, dir, service("payment", "10.0.0.1"))
			var logs logBuffer
			s := mustNew(t, Config{Dir: dir, Logger: logs.logger()})

			put(t, dir, service("orders", "10.0.2.1"))
			eventually(t, "the second service", func() bool { return addresses(t, s, "orders") != "" })
			version := s.Status().Config.Version
			must(tt.begin(dir))
			if _, err := os.Stat(filepath.Join(dir, "payment.yaml")); err == nil {
				put(t, dir, service("payment", "10.0.0.2"))
			}
			eventually(t, tt.want, func() bool {
				problems := s.Status().Config.Problems
				return len(problems) == 1 && strings.Contains(problems[0], tt.want)
			})
			if config := s.Status().Config; config.Version != version {
				t.Errorf("status %+v, want version %s", config, version)
			}
			if got := addresses(t, s, "payment") + addresses(t, s, "orders"); !strings.Contains(got, "10.0.0.1") || !strings.Contains(got, "10.0.2.1") {
				t.Errorf("served: %q", got)
			}
			if other, err := New(Config{Dir: dir}); err == nil {
				t.Error("a server begins with it")
				must(other.Close())
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("a server that begins: %v, want %q", err, tt.want)
			}

			must(tt.over(dir))
			put(t, dir, service("payment", "10.0.0.3"))
			eventually(t, "the change, without a problem", func() bool {
				return strings.Contains(addresses(t, s, "payment"), "10.0.0.3") && len(s.Status().Config.Problems) == 0
			})
			if addresses(t, s, "orders") == "" || addresses(t, s, "ledger") != "" {
				t.Error("a service has gone, or come")
			}
		})
	}
	if root {
		t.Run("of somebody who is not root", func(t *testing.T) {
			t.Parallel()
			asNobody(t, "TestWhatCannotBeReadKeepsWhatIsServed", asked)
		})
	}
}
