package lastgood

import (
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/observe"
)

const (
	clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	server     = "xds.test"
)

// reports collects what a store reports.
type reports struct {
	mu  sync.Mutex
	all []observe.LastGoodEvent // guarded by mu
}

func (r *reports) add(e observe.LastGoodEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
}

func (r *reports) take() []observe.LastGoodEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.all
	r.all = nil
	return taken
}

// setting is what the tests keep with, and where.
func setting(dir string) Config {
	return Config{
		Dir: dir, MaxAge: time.Hour, MaxBytes: 1 << 20, Owner: "us", Label: `node "us"`,
		Servers: func(Key) []string { return []string{server} },
		Report:  func(observe.LastGoodEvent) {},
	}
}

func mustOpen(t testing.TB, config Config) *Store {
	t.Helper()
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func key(name string) Key { return Key{TypeURL: clusterURL, Name: name} }

// value is a cluster of a name. text is what differs.
func value(t testing.TB, name, text string) []byte {
	t.Helper()
	b, err := proto.Marshal(&clusterv3.Cluster{Name: name, AltStatName: text})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// secret is a cluster with a private key in it.
func secret(t testing.TB, name string, key *corev3.DataSource) []byte {
	t.Helper()
	packed, err := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificates: []*tlsv3.TlsCertificate{{PrivateKey: key}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&clusterv3.Cluster{Name: name, TransportSocket: &corev3.TransportSocket{
		Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keep lets a process keep resources, given as "name=text", and end.
func keep(t testing.TB, config Config, resources ...string) {
	t.Helper()
	s := mustOpen(t, config)
	s.Connected(server, true)
	for _, r := range resources {
		name, text, _ := strings.Cut(r, "=")
		s.Keep(key(name), "v1", value(t, name, text))
	}
	s.Stop()
}

// found is what the next process finds, as "name=text", sorted.
func found(t testing.TB, s *Store) []string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, it := range s.items {
		c := new(clusterv3.Cluster)
		if err := proto.Unmarshal(it.resource.Value, c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c.GetName()+"="+c.GetAltStatName())
	}
	slices.Sort(all)
	return all
}

// theFile is the path of the only file in a directory that is not a lock.
func theFile(t testing.TB, dir string) string {
	t.Helper()
	names := filesIn(t, dir)
	if len(names) != 1 {
		t.Fatalf("files %q in the directory, want one", names)
	}
	return filepath.Join(dir, names[0])
}

// filesIn are the names of the files in a directory that are not locks, sorted.
func filesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), lockSuffix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// failing is a directory in which every operation from a certain one on fails, as
// if the process, or the disk, were gone.
type failing struct {
	files

	err error

	mu    sync.Mutex
	after int      // guarded by mu; operations that work
	done  []string // guarded by mu
}

// recover lets everything work.
func (f *failing) recover() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = math.MaxInt
}

func (f *failing) step(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.done) >= f.after {
		return f.err
	}
	f.done = append(f.done, what)
	return nil
}

func (f *failing) create(name string) (file, error) {
	if err := f.step("create"); err != nil {
		return nil, err
	}
	inner, err := f.files.create(name)
	return &failingFile{file: inner, of: f}, err
}

func (f *failing) rename(from, to string) error {
	if err := f.step("rename"); err != nil {
		return err
	}
	return f.files.rename(from, to)
}

func (f *failing) remove(name string) error {
	if err := f.step("remove"); err != nil {
		return err
	}
	return f.files.remove(name)
}

func (f *failing) sync() error {
	if err := f.step("sync directory"); err != nil {
		return err
	}
	return f.files.sync()
}

type failingFile struct {
	file

	of *failing
}

var _ io.Writer = (*failingFile)(nil)

// Write writes half of what it fails to write.
func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.of.step("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *failingFile) Sync() error {
	if err := f.of.step("sync"); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *failingFile) Close() error {
	err := f.file.Close()
	if failed := f.of.step("close"); failed != nil {
		return failed
	}
	return err
}

var errNoSpace = &fs.PathError{Op: "write", Path: "x", Err: io.ErrShortWrite}
