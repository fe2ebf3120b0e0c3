package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/health"

	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/controlplane/istio"
)

// ErrClosed is returned by a [Server] that was closed.
var ErrClosed = errors.New("control plane is closed")

// Config is how to make a [Server].
type Config struct {
	// Dir is a directory of Istio YAML, read with its subdirectories and
	// watched: see [istio.ReadDir] for which files count. Give Dir or Files.
	Dir string
	// Files is the initial configuration of a server without Dir. None is a
	// configuration without services.
	Files []istio.File
	// TrustDomain is the trust domain in the names that clients are told to
	// expect. Empty: that of CA, or "cluster.local" without one. It cannot
	// differ from that of CA.
	TrustDomain string
	// TrustDomainAliases are other names of the trust domain, as Istio's mesh
	// configuration has them: the workloads of one are accepted and expected
	// where those of the other are. None by default.
	TrustDomainAliases []string
	// RootNamespace is where mesh-wide policies are, a DNS label as every
	// namespace. Empty: "istio-system".
	RootNamespace string
	// CA authenticates clients and is offered beside ADS. Nil: there is no
	// secure listener, only plaintext ones.
	CA *ca.CA
	// ServerNames are DNS names and IP addresses that the certificate of the
	// secure listener has beside localhost, 127.0.0.1, ::1 and
	// istiod.istio-system.svc.
	ServerNames []string
	// Check says why a client would reject a resource: see [istio.Options]. A
	// configuration of which it refuses a part is refused as a whole, and the one
	// before stays in force. Give Check of package discovery/xds, whose clients
	// these are. Nil: only Envoy's constraints are looked at.
	Check func(typeURL string, value []byte) error
	// MaxStreams bounds how many ADS streams may be open at once; a client has one. A
	// further one is refused with RESOURCE_EXHAUSTED, and those that are there are not
	// disturbed. Zero: [DefaultMaxStreams].
	MaxStreams int
	// MaxConnections bounds how many connections to the listeners of [Server.Serve] may
	// be open at once, the secure and the plaintext one together; a client has one or
	// two. When there are as many, one that has had no call for a second or more makes
	// room for the next one, the longest first; without such a one the next one is
	// closed at once, and those that are there are not disturbed. Zero: MaxStreams and a
	// quarter more, 1,000 more at least. It is lowered to 256 less than the files that the
	// process may have open (RLIMIT_NOFILE).
	//
	// Whatever the bound, a connection must be one for xDS within 10 s, its TLS handshake
	// included, and ends when it is without a call for 90 s.
	MaxConnections int
	// Logger gets what happens. Nil: nothing is logged.
	Logger *slog.Logger
}

// DefaultMaxStreams is the bound without [Config.MaxStreams]: the clients that it
// allows take some 2 GB of memory.
const DefaultMaxStreams = 20_000

// Server is a control plane. Its methods are safe for concurrent use. Close
// it when it is not needed any more.
type Server struct {
	logger      *slog.Logger
	ca          *ca.CA
	dir         string
	options     istio.Options
	checks      checks
	watches     *watches
	certificate *certificate
	health      *health.Server
	nacks       seen
	maxStreams  int
	connections *connections
	stalls      atomic.Uint64 // streams that were ended because nobody read
	silent      atomic.Uint64 // streams that were ended because no request came
	pushed      atomic.Uint64 // resources that were sent
	rejections  atomic.Uint64
	announced   seen
	rejected    paced // lines of the log about what clients reject
	arrived     paced // that they have connected
	unsecured   paced // that they cannot be spoken to

	// ctx ends when the server is closed.
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool                 // guarded by mu
	work    sync.WaitGroup       // what Close waits for; Add is guarded by mu
	config  ConfigStatus         // guarded by mu
	clients map[*client]struct{} // guarded by mu
	opened  uint64               // guarded by mu; streams so far
	refused uint64               // guarded by mu; streams for which there was no room
	// toldFull is when that was last logged.
	toldFull time.Time // guarded by mu
}

// InvalidConfigError is the error of [New] for a configuration that cannot be
// served.
type InvalidConfigError struct {
	// Problems is everything that is wrong with it.
	Problems []istio.Problem
}

// Error lists every problem, one a line.
func (e *InvalidConfigError) Error() string {
	lines := []string{"configuration is invalid:"}
	for _, problem := range e.Problems {
		lines = append(lines, problem.String())
	}
	return strings.Join(lines, "\n")
}

// New makes a control plane and reads its first configuration, which must be
// good: a bad one is an [*InvalidConfigError]. It serves nothing until
// [Server.Serve] or [Server.Register].
func New(config Config) (*Server, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	s := &Server{
		logger: config.Logger,
		ca:     config.CA,
		dir:    config.Dir,
		options: istio.Options{
			TrustDomain: config.TrustDomain, TrustDomainAliases: config.TrustDomainAliases, RootNamespace: config.RootNamespace,
		},
		health:     health.NewServer(),
		clients:    make(map[*client]struct{}),
		maxStreams: config.MaxStreams,

		connections: newConnections(config.MaxConnections, config.Logger),
		arrived:     paced{alone: true},
	}
	if config.Check != nil {
		s.checks.ask = config.Check
		s.options.Check = s.checks.check
	}
	if s.ca != nil {
		s.certificate = newCertificate(s.ca, config.ServerNames)
		if _, err := s.certificate.current(); err != nil {
			return nil, err
		}
	}
	files := config.Files
	if s.dir != "" {
		var err error
		if files, err = ReadDir(s.dir); err != nil {
			return nil, err
		}
	}
	parsed, problems := s.parse(files)
	if len(problems) > 0 {
		return nil, &InvalidConfigError{Problems: problems}
	}
	s.config = statusOf(files, parsed)
	s.announce(parsed, s.config.Warnings)
	s.watches = newWatches(parsed)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work.Go(func() { s.watches.run(s.ctx, s.report) }) // until Close
	if s.dir != "" {
		source := newSource(s, s.config.Version, files)
		s.work.Go(func() { source.run(s.ctx) }) // until Close
	}
	return s, nil
}

func (c *Config) complete() error {
	var errs []error
	switch {
	case c.MaxStreams < 0:
		errs = append(errs, fmt.Errorf("MaxStreams %d is negative", c.MaxStreams))
	case c.MaxStreams == 0:
		c.MaxStreams = DefaultMaxStreams
	}
	switch {
	case c.MaxConnections < 0:
		errs = append(errs, fmt.Errorf("MaxConnections %d is negative", c.MaxConnections))
	case c.MaxConnections == 0:
		c.MaxConnections = c.MaxStreams + max(c.MaxStreams/4, 1000)
	}
	if c.TrustDomain != "" {
		if _, err := spiffeid.TrustDomainFromString(c.TrustDomain); err != nil {
			errs = append(errs, fmt.Errorf("trust domain %q: %w", c.TrustDomain, err))
		}
	}
	for _, alias := range c.TrustDomainAliases {
		if _, err := spiffeid.TrustDomainFromString(alias); err != nil || strings.ContainsAny(alias, ":/") {
			errs = append(errs, fmt.Errorf("trust domain alias %q: want a name such as %q", alias, "old.local"))
		}
	}
	if c.RootNamespace != "" && !isDNSLabel(c.RootNamespace) {
		// No document has such a namespace: the policies of the mesh would be
		// those of nobody.
		errs = append(errs, fmt.Errorf("root namespace %q: want a DNS label (lower case letters, digits and '-', at most 63)", c.RootNamespace))
	}
	for _, name := range c.ServerNames {
		if !isServerName(name) {
			errs = append(errs, fmt.Errorf("server name %q: want a DNS name or an IP address, without a port", name))
		}
	}
	if c.Dir != "" && len(c.Files) > 0 {
		errs = append(errs, errors.New("both Dir and Files are set: give one"))
	}
	switch {
	case c.CA == nil:
		if len(c.ServerNames) > 0 {
			errs = append(errs, errors.New("ServerNames are set without a CA to certify them"))
		}
	case c.TrustDomain == "":
		c.TrustDomain = c.CA.TrustDomain()
	case c.TrustDomain != c.CA.TrustDomain():
		errs = append(errs, fmt.Errorf("trust domain %q is not that of the CA, %q", c.TrustDomain, c.CA.TrustDomain()))
	}
	return errors.Join(errs...)
}

// Update replaces the whole configuration. If the new one has problems it
// changes nothing, and returns them all. A server that reads a directory
// takes no updates; it says so in a problem.
func (s *Server) Update(files []istio.File) []istio.Problem {
	if s.dir != "" {
		return []istio.Problem{{File: s.dir, Message: "the configuration is read from this directory: change the files"}}
	}
	parsed, problems := s.parse(files)
	s.install(files, parsed, problems)
	return problems
}

// install serves a configuration that was read, or reports what is wrong with
// it.
func (s *Server) install(files []istio.File, parsed *istio.Config, problems []istio.Problem) {
	if len(problems) > 0 {
		s.reject(problems)
		return
	}
	next := statusOf(files, parsed)
	version := next.Version
	s.mu.Lock()
	recovered := len(s.config.Problems) > 0
	same := version == s.config.Version
	if same {
		s.config.Problems, s.config.Rejected = nil, time.Time{}
	} else {
		// Together with the status, so that of two updates at once the same
		// one wins in both.
		s.config = next
		s.watches.replace(parsed)
	}
	s.mu.Unlock()
	if recovered {
		s.logger.Info("configuration is good again", "version", version)
	}
	if same {
		return
	}
	s.report(s.watches.push())
	s.logger.Info("configuration applied", "version", version, "files", len(files))
	s.announce(parsed, next.Warnings)
}

// statusOf is the status of a configuration that is served from now on.
func statusOf(files []istio.File, parsed *istio.Config) ConfigStatus {
	return ConfigStatus{
		Version: versionOf(files), Loaded: time.Now(), Files: len(files),
		Warnings: linesOf(parsed.Warnings()), Routes: routesOf(parsed),
	}
}

func linesOf(problems []istio.Problem) []string {
	lines := make([]string, len(problems))
	for i, problem := range problems {
		lines[i] = problem.String()
	}
	return lines
}

// announce logs the warnings of a configuration and what became of its routes,
// each once.
func (s *Server) announce(parsed *istio.Config, warnings []string) {
	for _, line := range warnings {
		if s.announced.first(line) {
			s.logger.Warn("configuration warning", "warning", line)
		}
	}
	for _, status := range parsed.Routes() {
		if line := status.String(); s.announced.first(line) {
			s.logger.Info("route status", "status", line)
		}
	}
}

func (s *Server) reject(problems []istio.Problem) {
	lines := linesOf(problems)
	s.mu.Lock()
	s.config.Problems, s.config.Rejected = lines, time.Now()
	version := s.config.Version
	s.mu.Unlock()
	s.logger.Error("configuration rejected: the previous one stays in force", "problems", len(lines), "version", version)
	for _, line := range lines {
		s.logger.Error("configuration problem", "problem", line)
	}
}

// report logs resources that could not be sent.
func (s *Server) report(errs []error) {
	for _, err := range errs {
		s.logger.Error("resource not sent", "error", err)
	}
}

// begin counts work that Close has to wait for, unless it is too late for it.
func (s *Server) begin() (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.work.Add(1)
	return s.work.Done, nil
}

// Close ends every stream and every [Server.Serve], and returns when nothing
// of the server runs any more: as [Server.Serve] says, after two seconds at most, of
// which it takes none unless a call goes on. A stream on a server of the caller's
// ([Server.Register]) whose client does not read is waited for until that server ends
// it, within a second. It may be called more than once; each call waits.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.health.Shutdown()
	s.work.Wait()
	return nil
}

// versionOf is a hash of files, their names included.
func versionOf(files []istio.File) string {
	digest := xxhash.New()
	for _, file := range files {
		// Lengths keep two lists of files from being written alike.
		_, _ = fmt.Fprintf(digest, "%q %d ", file.Name, len(file.Data)) // never fails, says its documentation
		_, _ = digest.Write(file.Data)
	}
	return strconv.FormatUint(digest.Sum64(), 16)
}
