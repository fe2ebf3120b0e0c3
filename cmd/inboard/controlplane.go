package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/discovery/xds"
)

// ready tells a program where the control plane listens. It is one line of
// JSON on standard output, and the content of the ready file.
type ready struct {
	Secure    string `json:"secure,omitempty"`
	Plaintext string `json:"plaintext,omitempty"`
	Status    string `json:"status,omitempty"`
}

// planeFlags are the flags of control-plane.
type planeFlags struct {
	config, caDir, trustDomain, rootNamespace string
	listen, plaintext, status                 string
	readyFile                                 string
	maxTTL                                    time.Duration
	maxStreams, maxConnections                int
	serverNames                               list
}

func controlPlane(ctx context.Context, call *invocation) (err error) {
	var opts planeFlags
	f := call.flags("", `Serves the Istio YAML in a directory over xDS, and certificates. Changes of
the files are served while it runs; a bad change is logged and changes
nothing. Addresses may have port 0; when it listens it prints them as one line
of JSON, {"secure":"...","plaintext":"...","status":"..."}. It ends with
SIGINT or SIGTERM.`)
	f.StringVar(&opts.config, "config", "", "directory `DIR` of Istio YAML (required)")
	f.StringVar(&opts.listen, "listen", "127.0.0.1:15012", "`ADDRESS` for xDS and certificates over TLS; empty for none")
	f.StringVar(&opts.plaintext, "plaintext-listen", "", "`ADDRESS` for xDS without TLS and without authentication; keep it on loopback")
	f.StringVar(&opts.status, "status", "127.0.0.1:15014", "`ADDRESS` for /status, /metrics, /healthz and /readyz over HTTP; empty for none")
	f.StringVar(&opts.trustDomain, "trust-domain", "", "the trust `DOMAIN` of a new CA; an old one knows its own (default "+ca.DefaultTrustDomain+")")
	f.StringVar(&opts.rootNamespace, "root-namespace", "istio-system", "the `NAMESPACE` of mesh-wide policies")
	f.DurationVar(&opts.maxTTL, "max-certificate-ttl", ca.DefaultTTL, "how long a certificate lives at most")
	f.IntVar(&opts.maxStreams, "max-streams", controlplane.DefaultMaxStreams, "how many xDS streams may be open at once; a further one is refused")
	f.IntVar(&opts.maxConnections, "max-connections", 0, "how many connections may be open at once, TLS and plaintext; a further one is closed, unless one without a call can make room. 0 is a quarter more than --max-streams, 1000 more at least")
	f.Var(&opts.serverNames, "server-name", "`NAME` or IP address by which clients reach the TLS listener, beside those of this host; repeatable")
	f.StringVar(&opts.readyFile, "ready-file", "", "`FILE` to write the addresses to when it listens; removed at the end")
	dir := f.caDir()
	if err := f.parse(); err != nil {
		return err
	}
	opts.caDir = *dir
	if err := f.required("config"); err != nil {
		return err
	}
	if opts.maxTTL < time.Second {
		return usagef("--max-certificate-ttl %v: want at least 1s", opts.maxTTL)
	}
	if opts.maxStreams < 1 {
		return usagef("--max-streams %d: want at least 1", opts.maxStreams)
	}
	if opts.maxConnections < 0 {
		return usagef("--max-connections %d: want at least 1, or 0 for as many as --max-streams needs", opts.maxConnections)
	}
	if opts.listen != "" {
		if err := f.required("ca-dir"); err != nil {
			return err
		}
	}
	return opts.serve(ctx, call)
}

func (o *planeFlags) serve(ctx context.Context, call *invocation) (err error) {
	logger := slog.New(slog.NewTextHandler(call.stderr, nil))
	config := controlplane.Config{
		Dir:            o.config,
		TrustDomain:    o.trustDomain,
		RootNamespace:  o.rootNamespace,
		Check:          xds.Check,
		MaxStreams:     o.maxStreams,
		MaxConnections: o.maxConnections,
		Logger:         logger,
	}
	if o.listen != "" {
		if config.CA, err = ca.New(ca.Config{Dir: o.caDir, TrustDomain: o.trustDomain, MaxTTL: o.maxTTL, Logger: logger}); err != nil {
			return err
		}
		config.ServerNames = o.serverNames
		if host, _, err := net.SplitHostPort(o.listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
			address, _, _ := strings.Cut(host, "%") // no certificate is for a zone
			config.ServerNames = append(config.ServerNames, address)
		}
	} else if len(o.serverNames) > 0 {
		return usagef("--server-name needs --listen")
	}
	server, err := controlplane.New(config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if o.readyFile != "" {
		// That of a process that was killed would be mistaken for ours.
		if err := removeFile(o.readyFile); err != nil {
			return fmt.Errorf("ready file: %w", err)
		}
	}
	listeners, where, err := o.open(ctx)
	if err != nil {
		return err
	}
	if exposed(where.Plaintext) {
		logger.Warn("the plaintext listener is not on loopback: whoever reaches it reads the configuration", "address", where.Plaintext)
	}
	if exposed(where.Status) {
		logger.Warn("the status listener is not on loopback: whoever reaches it reads the names of clients and the problems of the configuration", "address", where.Status)
	}
	line, err := json.Marshal(where)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	line = append(line, '\n')
	if o.readyFile != "" {
		if err := writeFile(o.readyFile, line, 0o644); err != nil {
			return errors.Join(fmt.Errorf("ready file: %w", err), closeAll(listeners))
		}
		defer func() { err = errors.Join(err, removeFile(o.readyFile)) }()
	}
	if _, err := call.stdout.Write(line); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	return server.Serve(ctx, listeners)
}

// exposed reports whether others than this host reach a bound address.
func exposed(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && !net.ParseIP(host).IsLoopback()
}

// open opens the listeners, all or none.
func (o *planeFlags) open(ctx context.Context) (controlplane.Listeners, ready, error) {
	var listeners controlplane.Listeners
	var where ready
	for _, one := range []struct {
		flag, address string
		listener      *net.Listener
		bound         *string
	}{
		{"listen", o.listen, &listeners.Secure, &where.Secure},
		{"plaintext-listen", o.plaintext, &listeners.Plaintext, &where.Plaintext},
		{"status", o.status, &listeners.Status, &where.Status},
	} {
		if one.address == "" {
			continue
		}
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", one.address)
		if err != nil {
			err = fmt.Errorf("--%s %q: %w", one.flag, one.address, err)
			return controlplane.Listeners{}, ready{}, errors.Join(err, closeAll(listeners))
		}
		*one.listener, *one.bound = listener, listener.Addr().String()
	}
	if where.Secure == "" && where.Plaintext == "" {
		err := usagef("nothing to serve: give --listen or --plaintext-listen")
		return controlplane.Listeners{}, ready{}, errors.Join(err, closeAll(listeners))
	}
	return listeners, where, nil
}

func closeAll(listeners controlplane.Listeners) error {
	var errs []error
	for _, listener := range []net.Listener{listeners.Secure, listeners.Plaintext, listeners.Status} {
		if listener != nil {
			errs = append(errs, listener.Close())
		}
	}
	return errors.Join(errs...)
}

// removeFile removes a file that may be gone already.
func removeFile(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
