package controlplane

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// followed is a directory that is looked at when the test says so, at the times that
// it says.
type followed struct {
	t      *testing.T
	dir    string
	server *Server
	source *source
	now    time.Time
}

func follow(t *testing.T, files ...istio.File) *followed {
	t.Helper()
	dir := t.TempDir()
	for _, file := range files {
		put(t, dir, file)
	}
	read, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := mustNew(t, Config{Files: read})
	s.dir = dir
	return &followed{
		t: t, dir: dir, server: s, now: time.Now(),
		source: &source{server: s, settled: s.Status().Config.Version, served: servedOf(read)},
	}
}

// write writes a file where it is.
func (f *followed) write(file istio.File) {
	f.t.Helper()
	put(f.t, f.dir, file)
	f.source.note(fsnotify.Event{Name: filepath.Join(f.dir, file.Name), Op: fsnotify.Write}, f.now)
}

// replace writes a file beside the one that it then replaces at once.
func (f *followed) replace(file istio.File) {
	f.t.Helper()
	f.write(istio.File{Name: "." + file.Name, Data: file.Data})
	name := filepath.Join(f.dir, file.Name)
	if err := os.Rename(filepath.Join(f.dir, "."+file.Name), name); err != nil {
		f.t.Fatal(err)
	}
	f.source.note(fsnotify.Event{Name: name, Op: fsnotify.Create}, f.now)
}

// after lets time pass, with a look at its beginning and whenever one is due.
func (f *followed) after(d time.Duration) {
	f.t.Helper()
	for end := f.now.Add(d); ; {
		wait := f.source.look(f.now)
		if wait == 0 || f.now.Add(wait).After(end) {
			f.now = end
			return
		}
		f.now = f.now.Add(wait)
	}
}

// want compares which services have which address now; "" is for one that is not there.
func (f *followed) want(what string, services map[string]string) {
	f.t.Helper()
	for name, address := range services {
		// The endpoints of what has gone stay for a moment, but not its listener.
		listener, err := f.server.watches.current.Load().lookup(istio.Node{}, lds, host(name)+":8080")
		if err != nil {
			f.t.Fatal(err)
		}
		if got := addresses(f.t, f.server, name); (listener != nil) != (address != "") || !strings.Contains(got, address) {
			f.t.Fatalf("%s: %s has %q, want %q", what, name, got, address)
		}
	}
}

// both is a file with two services.
func both(address string) istio.File {
	data := append(bytes.Clone(service("payment", address).Data), "---\n"...)
	return istio.File{Name: "both.yaml", Data: append(data, service("ledger", address).Data...)}
}

func half(file istio.File) istio.File {
	at := bytes.Index(file.Data, []byte("---\n"))
	return istio.File{Name: file.Name, Data: file.Data[:at]}
}

func TestAFileWhoseWriterPausesIsServedWhole(t *testing.T) {
	t.Parallel()
	f := follow(t, both("10.0.0.1"))
	f.write(half(both("10.0.0.2")))
	for range 4 {
		f.after(time.Second)
		f.want("a second later", map[string]string{"payment": "10.0.0.1", "ledger": "10.0.0.1"})
	}
	f.write(both("10.0.0.2"))
	f.after(writeTime - 100*time.Millisecond)
	f.want("when it is whole", map[string]string{"payment": "10.0.0.1", "ledger": "10.0.0.1"})
	f.after(200 * time.Millisecond)
	f.want("when it is quiet", map[string]string{"payment": "10.0.0.2", "ledger": "10.0.0.2"})
}

// TestANewFileIsServedWhole: nothing of it is served, so nothing of it can be missed.
func TestANewFileIsServedWhole(t *testing.T) {
	t.Parallel()
	f := follow(t, service("orders", "10.0.9.9"))
	f.write(half(both("10.0.0.2")))
	f.after(700 * time.Millisecond)
	f.want("half of it", map[string]string{"payment": "", "ledger": ""})
	f.write(both("10.0.0.2"))
	f.after(700 * time.Millisecond)
	f.want("all of it", map[string]string{"payment": "", "ledger": ""})
	f.after(400 * time.Millisecond)
	f.want("when it is quiet", map[string]string{"payment": "10.0.0.2", "ledger": "10.0.0.2", "orders": "10.0.9.9"})
}

func TestDocumentsThatAreTakenAwayGoLater(t *testing.T) {
	t.Parallel()
	f := follow(t, both("10.0.0.1"))
	f.write(half(both("10.0.0.2")))
	f.after(cutTime - 100*time.Millisecond)
	f.want("before the time is over", map[string]string{"payment": "10.0.0.1", "ledger": "10.0.0.1"})
	f.after(200 * time.Millisecond)
	f.want("after it", map[string]string{"payment": "10.0.0.2", "ledger": ""})
}

// TestWhatIsReplacedAtOnceDoesNotWait: it is whole, whatever it lacks.
func TestWhatIsReplacedAtOnceDoesNotWait(t *testing.T) {
	t.Parallel()
	f := follow(t, both("10.0.0.1"))
	f.replace(half(both("10.0.0.2")))
	f.after(settleTime + time.Millisecond)
	f.want("a moment later", map[string]string{"payment": "10.0.0.2", "ledger": ""})
	f.replace(both("10.0.0.3"))
	f.after(settleTime + time.Millisecond)
	f.want("a moment later", map[string]string{"payment": "10.0.0.3", "ledger": "10.0.0.3"})
	if err := os.Remove(filepath.Join(f.dir, "both.yaml")); err != nil {
		t.Fatal(err)
	}
	put(t, f.dir, service("orders", "10.0.9.9"))
	f.source.note(fsnotify.Event{Name: filepath.Join(f.dir, "both.yaml"), Op: fsnotify.Remove}, f.now)
	f.after(settleTime + time.Millisecond)
	f.want("a moment later", map[string]string{"payment": "", "ledger": "", "orders": "10.0.9.9"})
}

// TestAChangeWithoutASignWaits: who found it by looking does not know whether somebody
// writes.
func TestAChangeWithoutASignWaits(t *testing.T) {
	t.Parallel()
	f := follow(t, both("10.0.0.1"))
	put(t, f.dir, both("10.0.0.2"))
	f.after(writeTime - 100*time.Millisecond)
	f.want("before the time is over", map[string]string{"payment": "10.0.0.1"})
	f.after(200 * time.Millisecond)
	f.want("after it", map[string]string{"payment": "10.0.0.2"})
}

func TestAChangeIsNeverLaterThanItsBound(t *testing.T) {
	t.Parallel()
	f := follow(t, both("10.0.0.1"))
	for i := range 19 {
		f.write(both(fmt.Sprintf("10.0.1.%d", i)))
		f.after(lateTime / 20)
		f.want("while somebody writes", map[string]string{"payment": "10.0.0.1"})
	}
	f.write(both("10.0.2.2"))
	f.after(lateTime/20 + time.Millisecond)
	f.want("when it has lasted too long", map[string]string{"payment": "10.0.2.2", "ledger": "10.0.2.2"})
}

func TestALinkedFileIsWrittenWhateverItsName(t *testing.T) {
	t.Parallel()
	f := follow(t, both("10.0.0.1"))
	f.source.linked = map[string]bool{"/elsewhere/data": true}
	for name, want := range map[string]bool{
		"/elsewhere/data": true, "/elsewhere/other": false, "/d/a.yaml": true, "/d/A.JSON": true, "/d/.a.yaml": false, "/d/a.yaml~": false,
	} {
		f.source.written = time.Time{}
		f.source.note(fsnotify.Event{Name: name, Op: fsnotify.Write}, f.now)
		if got := !f.source.written.IsZero(); got != want {
			t.Errorf("%s: written is %v", name, got)
		}
	}
}

func TestWhatLooksCutOff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, before, now string
		want              bool
	}{
		{"new", "", "a: 1\n", false},
		{"the same", "a: 1\n", "a: 1\n", false},
		{"shorter", "a: 10\n", "a: 1\n", false},
		{"one document less", "a: 1\n---\nb: 1\n", "a: 2\n", true},
		{"one more", "a: 1\n", "a: 2\n---\nb: 1\n", false},
		{"a comment in its place", "a: 1\n---\nb: 1\n", "a: 2\n---\n# none\n", true},
		{"empty ones less", "---\n---\na: 1\n---\n", "--- # here\na: 2\n", false},
		{"one beside its mark", "--- {a: 1}\n--- {b: 1}\n", "--- {a: 2}\n", true},
		{"its beginning", "a: 1\nb: 1\n", "a: 1\n", true},
		{"without its last line's end", "a: 1\nb: 1\n", "a: 2\nb:", true},
		{"nothing", "a: 1\n", "", true},
		{"never with an end", `{"a": 1}`, `{"a": 2}`, false},
	} {
		var before []byte
		if c.before != "" {
			before = []byte(c.before)
		}
		if got := isCut(before, []byte(c.now)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestAWriterWhoPausesInTheMiddle is the same with a system that tells what happens.
func TestAWriterWhoPausesInTheMiddle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, both("10.0.0.1"))
	logs := new(logBuffer)
	s := mustNew(t, Config{Dir: dir, Logger: logs.logger()})
	file, err := os.Create(filepath.Join(dir, "both.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	first := half(both("10.0.0.2")).Data
	for _, part := range [][]byte{first, both("10.0.0.2").Data[len(first):]} {
		if _, err := file.Write(part); err != nil {
			t.Fatal(err)
		}
		pause := time.NewTimer(400 * time.Millisecond)
		<-pause.C
	}
	eventually(t, "the new addresses", func() bool {
		if addresses(t, s, "ledger") == "" {
			t.Fatal("half of the file is served")
		}
		return strings.Contains(addresses(t, s, "ledger"), "10.0.0.2")
	})
	if logs.count("configuration applied") != 1 || logs.count("configuration rejected") != 0 {
		t.Errorf("want the file once:\n%s", logs)
	}
}
