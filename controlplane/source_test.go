package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// patience bounds every wait of these tests. A change takes about 100 ms; the
// rest is for a machine that is busy.
const patience = 30 * time.Second

// eventually waits until the condition holds, and returns how long it took.
func eventually(t *testing.T, what string, condition func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in vain: %s", what)
		}
	}
	return time.Since(start)
}

func put(t *testing.T, dir string, file istio.File) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file.Name), file.Data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// addresses returns the endpoints that the server has for a service now.
func addresses(t *testing.T, s *Server, name string) string {
	t.Helper()
	e, err := s.watches.current.Load().lookup(istio.Node{}, eds, cluster(name))
	if err != nil {
		t.Fatal(err)
	}
	if e == nil {
		return ""
	}
	return string(e.any.GetValue())
}

func watched(t *testing.T) (dir string, s *Server, logs *logBuffer) {
	t.Helper()
	dir = t.TempDir()
	put(t, dir, service("payment", "10.0.0.1"))
	logs = new(logBuffer)
	return dir, mustNew(t, Config{Dir: dir, Logger: logs.logger()}), logs
}

func TestFileChangesReachTheClientInHalfASecond(t *testing.T) {
	t.Parallel()
	dir, s, _ := watched(t)
	c := newDelta(t, dial(t, serveMemory(t, s), "plaintext:1"), node("shop", "customer"))
	c.subscribe(eds, cluster("payment"), cluster("ledger"))
	c.want(eds, []string{cluster("payment")}, []string{cluster("ledger")})

	best := patience
	for _, change := range []func(){
		func() { put(t, dir, service("payment", "10.0.0.2")) },
		func() { // as editors do
			put(t, dir, istio.File{Name: ".payment.swp", Data: service("payment", "10.0.0.3").Data})
			if err := os.Rename(filepath.Join(dir, ".payment.swp"), filepath.Join(dir, "payment.yaml")); err != nil {
				t.Fatal(err)
			}
		},
		func() { put(t, dir, service("payment", "10.0.0.4")) },
	} {
		start := time.Now()
		change()
		c.want(eds, []string{cluster("payment")}, nil)
		best = min(best, time.Since(start))
	}
	if best > 500*time.Millisecond {
		t.Errorf("the fastest of three changes took %v, want at most 500ms", best)
	}

	put(t, dir, service("ledger", "10.0.1.1"))
	c.want(eds, []string{cluster("ledger")}, nil)
	if err := os.Remove(filepath.Join(dir, "ledger.yaml")); err != nil {
		t.Fatal(err)
	}
	c.want(eds, nil, []string{cluster("ledger")})
}

func TestBadFilesAreReportedOnceAndKeepWhatIsServed(t *testing.T) {
	t.Parallel()
	dir, s, logs := watched(t)
	version := s.Status().Config.Version
	put(t, dir, broken)
	eventually(t, "problems in the status", func() bool { return len(s.Status().Config.Problems) > 0 })
	config := s.Status().Config
	want := filepath.Join(dir, "broken.yaml") + ":8"
	if config.Version != version || !strings.HasPrefix(config.Problems[0], want) || !strings.Contains(config.Problems[0], "nonsense") {
		t.Errorf("status %+v, want problem at %s", config, want)
	}
	put(t, dir, broken) // touched, the same
	put(t, dir, istio.File{Name: "notes.txt", Data: []byte("x")})

	if err := os.Remove(filepath.Join(dir, "broken.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no problems in the status", func() bool {
		return len(s.Status().Config.Problems) == 0 && logs.count("configuration is good again") > 0
	})
	if logs.count("configuration rejected") != 1 || logs.count("configuration is good again") != 1 {
		t.Errorf("want each once:\n%s", logs)
	}
	if logs.count("configuration applied") != 0 {
		t.Errorf("what was served already is applied again:\n%s", logs)
	}
}

func TestHalfWrittenFileIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir, s, logs := watched(t)
	name := filepath.Join(dir, "payment.yaml")
	data := service("payment", "10.0.0.2").Data
	// Empty for a moment, then without its end for a moment.
	for _, part := range [][]byte{nil, data[:len(data)/2], data} {
		if err := os.WriteFile(name, part, 0o600); err != nil {
			t.Fatal(err)
		}
		pause := time.NewTimer(settleTime / 2)
		<-pause.C
	}
	eventually(t, "the new address", func() bool {
		return strings.Contains(addresses(t, s, "payment"), "10.0.0.2") && logs.count("configuration applied") > 0
	})
	if logs.count("configuration rejected") != 0 || logs.count("configuration applied") != 1 {
		t.Errorf("a half written file counts:\n%s", logs)
	}
}

// A copy that was broken off, or a full disk, must not take policies away.
func TestWhatBecomesEmptyStaysInForce(t *testing.T) {
	t.Parallel()
	dir, s, logs := watched(t)
	put(t, dir, service("orders", "10.0.0.8"))
	eventually(t, "both services", func() bool { return addresses(t, s, "payment") != "" && addresses(t, s, "orders") != "" })
	problem := func(text string) func() bool {
		return func() bool {
			problems := s.Status().Config.Problems
			return len(problems) > 0 && strings.Contains(problems[0], text)
		}
	}
	name := filepath.Join(dir, "payment.yaml")
	put(t, dir, istio.File{Name: "payment.yaml", Data: []byte("\n")})
	eventually(t, "a problem with the file", problem(name+": the file has become empty"))
	put(t, dir, service("orders", "10.0.0.9")) // it is one with other changes, too
	eventually(t, "the same problem", func() bool { return logs.count("configuration rejected") > 1 && problem("the file has become empty")() })
	if got := addresses(t, s, "payment") + addresses(t, s, "orders"); !strings.Contains(got, "10.0.0.1") || !strings.Contains(got, "10.0.0.8") {
		t.Errorf("served: %s", got)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its withdrawal", func() bool {
		return addresses(t, s, "payment") == "" && strings.Contains(addresses(t, s, "orders"), "10.0.0.9")
	})

	if err := os.Remove(filepath.Join(dir, "orders.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a problem with the directory", problem("no file is left in the directory"))
	if addresses(t, s, "orders") == "" {
		t.Error("what was there is gone")
	}
	put(t, dir, istio.File{Name: "nothing.yaml", Data: []byte("# nothing\n")})
	eventually(t, "a file that says so", func() bool { return addresses(t, s, "orders") == "" && len(s.Status().Config.Problems) == 0 })
}

func TestFilesAreFoundWhereverTheyMove(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links")
	}
	base := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first, second := filepath.Join(base, "first"), filepath.Join(base, "second")
	must(os.Mkdir(first, 0o700))
	must(os.Mkdir(second, 0o700))
	put(t, first, service("payment", "10.0.0.1"))
	put(t, second, service("payment", "10.0.0.2"))
	link := filepath.Join(base, "current")
	must(os.Symlink(first, link))
	s := mustNew(t, Config{Dir: link})
	has := func(address string) func() bool {
		return func() bool { return strings.Contains(addresses(t, s, "payment"), address) }
	}

	// The directory is a link, and the link is replaced.
	must(os.Symlink(second, link+".new"))
	must(os.Rename(link+".new", link))
	eventually(t, "the second directory", has("10.0.0.2"))
	put(t, second, service("payment", "10.0.0.3"))
	eventually(t, "a change in the second directory", has("10.0.0.3"))

	// A directory appears below, and files in it change.
	below := filepath.Join(second, "below", "deep")
	must(os.MkdirAll(below, 0o700))
	put(t, below, service("ledger", "10.0.1.1"))
	eventually(t, "a file below", func() bool { return addresses(t, s, "ledger") != "" })
	put(t, below, service("ledger", "10.0.1.2"))
	eventually(t, "a change below", func() bool { return strings.Contains(addresses(t, s, "ledger"), "10.0.1.2") })

	// A file is a link to a file elsewhere, which changes.
	elsewhere := t.TempDir()
	put(t, elsewhere, service("orders", "10.0.2.1"))
	must(os.Symlink(filepath.Join(elsewhere, "orders.yaml"), filepath.Join(second, "orders.yaml")))
	eventually(t, "a linked file", func() bool { return addresses(t, s, "orders") != "" })
	put(t, elsewhere, service("orders", "10.0.2.2"))
	eventually(t, "a change of a linked file", func() bool { return strings.Contains(addresses(t, s, "orders"), "10.0.2.2") })

	// The directory is gone, which is a problem, and comes back.
	must(os.Rename(second, second+".away"))
	eventually(t, "a problem", func() bool { return len(s.Status().Config.Problems) == 1 })
	if !has("10.0.0.3")() {
		t.Error("what is served went with the directory")
	}
	must(os.Rename(second+".away", second))
	eventually(t, "no problem", func() bool { return len(s.Status().Config.Problems) == 0 })
}

// TestConfigMapIsFollowed changes files as the kubelet does: by one link that
// all files go through.
func TestConfigMapIsFollowed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links")
	}
	dir := t.TempDir()
	mount := func(name string, file istio.File) {
		t.Helper()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700), os.Symlink(name, filepath.Join(dir, "..data_tmp"))); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name), file)
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount("..1", service("payment", "10.0.0.1"))
	if err := os.Symlink(filepath.Join("..data", "payment.yaml"), filepath.Join(dir, "payment.yaml")); err != nil {
		t.Fatal(err)
	}
	s := mustNew(t, Config{Dir: dir})
	mount("..2", service("payment", "10.0.0.2"))
	took := eventually(t, "the new mount", func() bool { return strings.Contains(addresses(t, s, "payment"), "10.0.0.2") })
	if took > pollTime {
		t.Logf("took %v, so it was found by polling", took)
	}
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	mount("..3", service("payment", "10.0.0.3"))
	eventually(t, "the third mount", func() bool { return strings.Contains(addresses(t, s, "payment"), "10.0.0.3") })
}

func TestUpdateIsNotForADirectory(t *testing.T) {
	t.Parallel()
	dir, s, _ := watched(t)
	problems := s.Update(nil)
	if len(problems) != 1 || problems[0].File != dir {
		t.Errorf("got %v, want a problem of the directory", problems)
	}
	if addresses(t, s, "payment") == "" {
		t.Error("the update was made")
	}
}

// TestNothingRunsAfterClose is not parallel, so that what runs is its own.
func TestNothingRunsAfterClose(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		s, err := New(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Serve(t.Context(), Listeners{Status: listener}); err != nil && !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
	eventually(t, "no goroutine of a server", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !bytes.Contains(stacks, []byte("inboard/controlplane.(*")) && !bytes.Contains(stacks, []byte("fsnotify"))
	})
}

// Thousands of files: one is replaced as an editor does, one is half written for a
// while, and all of them are swapped by a link.
func TestThousandsOfFilesAreFollowed(t *testing.T) {
	t.Parallel()
	const files = 2000
	root := t.TempDir()
	fill := func(name, address string) {
		t.Helper()
		for i, file := range shops(files, 0) {
			dir := filepath.Join(root, name, fmt.Sprintf("team-%d", i%20))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, dir, istio.File{Name: file.Name, Data: service(strings.TrimSuffix(file.Name, ".yaml"), address).Data})
		}
	}
	fill("one", "10.0.0.1")
	dir := filepath.Join(root, "current")
	if err := os.Symlink("one", dir); err != nil {
		t.Fatal(err)
	}
	var logs logBuffer
	s := mustNew(t, Config{Dir: dir, Logger: logs.logger()})
	if got := s.Status().Config.Files; got != files {
		t.Fatalf("%d files", got)
	}

	swap := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	edited := service("s7", "10.9.9.9")
	put(t, filepath.Join(root, "one"), istio.File{Name: ".s7.swp", Data: edited.Data})
	swap(filepath.Join(root, "one", ".s7.swp"), filepath.Join(root, "one", "team-7", "s7.yaml"))
	eventually(t, "the edited file", func() bool { return strings.Contains(addresses(t, s, "s7"), "10.9.9.9") })

	whole := service("s8", "10.8.8.8")
	half := istio.File{Name: "s8.yaml", Data: whole.Data[:len(whole.Data)*3/4]}
	put(t, filepath.Join(root, "one", "team-8"), half)
	eventually(t, "the half-written file in the status", func() bool { return len(s.Status().Config.Problems) > 0 })
	if !strings.Contains(addresses(t, s, "s8"), "10.0.0.1") || !strings.Contains(s.Status().Config.Problems[0], "s8.yaml") {
		t.Errorf("served are %q, problems %q", addresses(t, s, "s8"), s.Status().Config.Problems)
	}
	put(t, filepath.Join(root, "one", "team-8"), whole)
	eventually(t, "the whole file", func() bool { return strings.Contains(addresses(t, s, "s8"), "10.8.8.8") })

	fill("two", "10.2.2.2")
	if err := os.Symlink("two", filepath.Join(root, "next")); err != nil {
		t.Fatal(err)
	}
	swap(filepath.Join(root, "next"), dir)
	eventually(t, "all the files of the other directory", func() bool {
		return strings.Contains(addresses(t, s, "s1"), "10.2.2.2") && strings.Contains(addresses(t, s, "s1999"), "10.2.2.2")
	})
	if n := logs.count("configuration rejected"); n != 1 {
		t.Errorf("rejected %d times, want once:\n%s", n, &logs)
	}
}
