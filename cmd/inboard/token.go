package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/inboardmesh/inboard/controlplane/ca"
)

func token(_ context.Context, call *invocation) error {
	f := call.flags("", `Issues a token with which a workload gets its certificates and its
configuration. Who has the token is the workload: keep it where nobody else
can read it. A workload reads the file whenever it connects: write a new token
to it before the old one expires. Without one, certificates that are valid are
still renewed, but no new stream of configuration is opened.`)
	dir := f.caDir()
	namespace := f.String("namespace", "", "the workload's `NAMESPACE` (required)")
	account := f.String("service-account", "", "the workload's service account `NAME` (required)")
	trustDomain := f.String("trust-domain", "", "the trust `DOMAIN`, as the control plane has it; needed if the CA is plugged in and not for "+ca.DefaultTrustDomain)
	ttl := f.Duration("ttl", 24*time.Hour, "how long the token can be used")
	out := f.String("out", "", "`FILE` to write the token to, readable by its owner only; empty prints it")
	if err := f.parse(); err != nil {
		return err
	}
	if err := f.required("ca-dir", "namespace", "service-account"); err != nil {
		return err
	}
	if entries, err := os.ReadDir(*dir); len(entries) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		fmt.Fprintf(call.stderr, "inboard token: there is no CA in %s yet: making one\n", *dir)
	}
	authority, err := ca.New(ca.Config{Dir: *dir, TrustDomain: *trustDomain})
	if err != nil {
		return err
	}
	issued, err := authority.IssueToken(*namespace, *account, *ttl)
	if err != nil {
		return err
	}
	if *out != "" {
		return writeFile(*out, []byte(issued+"\n"), 0o600)
	}
	_, err = fmt.Fprintln(call.stdout, issued)
	return err
}
