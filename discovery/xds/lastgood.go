package xds

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
	"github.com/inboardmesh/inboard/discovery/xds/internal/lastgood"
	"github.com/inboardmesh/inboard/observe"
)

const (
	// DefaultMaxAge is how old configuration from disk may be unless
	// [LastKnownGood.MaxAge] says otherwise.
	DefaultMaxAge = 24 * time.Hour
	// DefaultMaxBytes is the same of [LastKnownGood.MaxBytes].
	DefaultMaxBytes = 64 << 20
	minMaxAge       = time.Second
	minMaxBytes     = 4 << 10
)

// LastKnownGood is how configuration is kept on disk for a start without a control
// plane.
type LastKnownGood struct {
	// Dir is an absolute path of a directory of this user. It is made, with mode
	// 0700, if it is not there. Processes may share it, each has a file of its own
	// there, also if their identity is the same. "" keeps nothing.
	Dir string
	// MaxAge is how long ago the control plane may have been heard of, and may have
	// had a resource, at the start for what is on disk to be used: at least 1 s. Zero
	// is [DefaultMaxAge].
	MaxAge time.Duration
	// MaxBytes bounds the file, and what of it is held in memory: at least 4 KiB.
	// Zero is [DefaultMaxBytes].
	MaxBytes int64
}

// Validate reports every mistake.
func (l *LastKnownGood) Validate() error {
	var errs []error
	if l.Dir == "" && (l.MaxAge != 0 || l.MaxBytes != 0) {
		errs = append(errs, errors.New("last known good: no Dir is given"))
	}
	if l.Dir != "" && !filepath.IsAbs(l.Dir) {
		errs = append(errs, fmt.Errorf("last known good: Dir %q is not an absolute path", l.Dir))
	}
	if l.MaxAge != 0 && l.MaxAge < minMaxAge {
		errs = append(errs, fmt.Errorf("last known good: MaxAge %v is less than %v", l.MaxAge, minMaxAge))
	}
	if l.MaxBytes != 0 && l.MaxBytes < minMaxBytes {
		errs = append(errs, fmt.Errorf("last known good: MaxBytes %d is less than %d", l.MaxBytes, minMaxBytes))
	}
	return errors.Join(errs...)
}

// ConfigSource says where the configuration in force comes from.
type ConfigSource struct {
	// Live and LastKnownGood are how many resources in force came from the control
	// plane, and from disk.
	Live, LastKnownGood int
	// File is where configuration is kept; "" if it is not. Others is how many
	// processes of the same identity had taken a file in the same directory before:
	// the first of them has 0.
	File   string
	Others int
	// Saved is when the control plane last stood by what was found there at the
	// start; zero if nothing that can be used was.
	Saved time.Time
	// Refused is why what was found is not used; nil if it is, or nothing was.
	Refused error
	// Written is when this process last wrote the file, zero if it did not yet.
	Written time.Time
	// NotWritten is why the last attempt failed, or what the file is without because it
	// would be too large; nil if all is written.
	NotWritten error
}

// String is "live", "last known good", "mixed" or, without configuration, "none".
func (c ConfigSource) String() string {
	switch {
	case c.Live > 0 && c.LastKnownGood > 0:
		return "mixed"
	case c.LastKnownGood > 0:
		return "last known good"
	case c.Live > 0:
		return "live"
	}
	return "none"
}

// ConfigSource says where the configuration in force comes from.
func (s *Source) ConfigSource() ConfigSource {
	if s.keeper == nil {
		var c ConfigSource
		for _, state := range s.client.Dump() {
			if state.Resource != nil {
				c.Live++
			}
		}
		return c
	}
	status := s.keeper.store.Status()
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	return ConfigSource{
		Live: len(s.keeper.live), LastKnownGood: len(s.keeper.lent),
		File: status.File, Others: status.Others, Saved: status.Saved, Refused: status.Refused,
		Written: status.Written, NotWritten: status.NotWritten,
	}
}

// StopKeeping writes what is in force to disk, if it is kept there, and keeps no
// more of what happens. Call it before the watches are stopped one by one: what
// nobody watches is not kept. Close does it too.
func (s *Source) StopKeeping() {
	if s.keeper != nil {
		s.keeper.store.Stop()
	}
}

func newKeeper(config *bootstrap.Config, options *Options, types []ads.Type) (*keeper, error) {
	if err := options.LastKnownGood.Validate(); err != nil {
		return nil, err
	}
	k := &keeper{
		types: make(map[string]ads.Type, len(types)), hooks: &options.Hooks, logger: options.Logger,
		strict: strict(config), servers: make(map[string][]string), voices: make(map[string]*voice),
		resources: make(map[lastgood.Key]*keptResource), versions: make(map[lastgood.Key]string),
		lent: make(map[lastgood.Key]string), live: make(map[lastgood.Key]struct{}),
	}
	for _, t := range types {
		k.types[t.URL] = t
	}
	servers := authoritiesOf(config)
	for authority, all := range servers {
		k.voices[authority] = new(voice)
		for _, server := range all {
			k.servers[server.URI] = append(k.servers[server.URI], authority)
		}
	}
	if k.logger == nil {
		k.logger = slog.New(slog.DiscardHandler)
	}
	owner, label, err := ownerOf(config)
	if err != nil {
		return nil, err
	}
	store := lastgood.Config{
		Dir: options.LastKnownGood.Dir, MaxAge: options.LastKnownGood.MaxAge, MaxBytes: options.LastKnownGood.MaxBytes,
		Owner: owner, Label: label, Report: k.disk,
		Servers: func(key lastgood.Key) (names []string) {
			for _, server := range servers[ads.Authority(key.Name)] {
				names = append(names, server.URI)
			}
			return names
		},
	}
	if store.MaxAge == 0 {
		store.MaxAge = DefaultMaxAge
	}
	if store.MaxBytes == 0 {
		store.MaxBytes = DefaultMaxBytes
	}
	if k.store, err = lastgood.Open(store); err != nil {
		return nil, fmt.Errorf("last known good: %w", err)
	}
	if status := k.store.Status(); status.Others > 0 {
		k.logger.Info("other processes with this identity keep last known good configuration in the same directory: this one has a file of its own",
			"file", status.File, "others", status.Others)
	}
	return k, nil
}

func (k *keeper) remembering(types []ads.Type) []ads.Type {
	all := make([]ads.Type, len(types))
	for i, t := range types {
		all[i] = t
		if t.URL != decode.SecretURL {
			all[i] = remembering(t)
		}
	}
	return all
}

// disk tells what happens to the file.
func (k *keeper) disk(e observe.LastGoodEvent) {
	switch e.Kind {
	case observe.LastGoodRefused:
		k.logger.Warn("last known good configuration refused", "error", e.Err)
	case observe.LastGoodNotWritten:
		k.logger.Warn("last known good configuration not written", "error", e.Err)
	case observe.LastGoodWritten:
		k.logger.Debug("last known good configuration written", "resources", e.Resources, "bytes", e.Bytes)
	case observe.LastGoodUsed:
	}
	k.report(e)
}

// describe adds to the state of a resource what the client does not know.
func (k *keeper) describe(state *ResourceState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if version, lent := k.lent[lastgood.Key{TypeURL: state.TypeURL, Name: state.Name}]; lent {
		state.Version, state.LastKnownGood = version, true
	}
}

// strictness has the authorities of which a server asks for its errors to be those of
// calls (gRFC A88).
type strictness map[string]bool

// of reports whether a resource is of one of them.
func (s strictness) of(name string) bool { return s[authorityOf(name)] }

func strict(config *bootstrap.Config) strictness {
	s := make(strictness)
	for authority, servers := range authoritiesOf(config) {
		s[authority] = slices.ContainsFunc(servers, func(one bootstrap.Server) bool { return one.Has(bootstrap.FeatureFailOnDataErrors) })
	}
	return s
}

// authoritiesOf are the servers of a bootstrap by what [ads.Authority] tells apart.
func authoritiesOf(config *bootstrap.Config) map[string][]bootstrap.Server {
	all := map[string][]bootstrap.Server{"": config.Servers}
	for name, authority := range config.Authorities {
		servers := authority.Servers
		if len(servers) == 0 {
			servers = config.Servers
		}
		all["//"+name] = servers
	}
	return all
}

// serversOf are all servers of a bootstrap: its own, and those of its authorities by
// their names.
func serversOf(config *bootstrap.Config) []bootstrap.Server {
	all := slices.Clone(config.Servers)
	for _, name := range slices.Sorted(maps.Keys(config.Authorities)) {
		all = append(all, config.Authorities[name].Servers...)
	}
	return all
}

// ownerOf is all that a control plane decides by what a workload gets. A file is
// used by who has the same. Addresses are not part of it: a workload that is started
// again may have another one.
func ownerOf(config *bootstrap.Config) (owner, label string, err error) {
	all := serversOf(config)
	servers := make([]string, len(all))
	for i := range all {
		servers[i] = all[i].URI
	}
	authorities := make(map[string]any, len(config.Authorities))
	for name, authority := range config.Authorities {
		authorities[name] = []any{len(authority.Servers), authority.ClientListenerTemplate}
	}
	metadata := maps.Clone(config.Node.Metadata)
	delete(metadata, "INSTANCE_IPS")
	id := config.Node.ID
	if parts := strings.Split(id, "~"); len(parts) == 4 { // as Istio has it, with an address
		parts[1] = ""
		id = strings.Join(parts, "~")
	}
	text, err := json.Marshal(map[string]any{
		"node": id, "cluster": config.Node.Cluster, "locality": config.Node.Locality, "metadata": metadata,
		"servers": servers, "authorities": authorities, "client": config.ClientListenerTemplate, "server": config.ServerListenerTemplate,
	})
	if err != nil {
		return "", "", fmt.Errorf("node metadata: %w", err)
	}
	return string(text), fmt.Sprintf("node %q of %q", config.Node.ID, strings.Join(servers, ", ")), nil
}
