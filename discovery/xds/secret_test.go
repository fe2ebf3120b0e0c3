package xds

import (
	"crypto/x509"
	"errors"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// secretsOf are a certificate and roots of one CA.
func secretsOf(t *testing.T, ca *tlstest.CA) (certificate, roots *meshtls.Identity) {
	t.Helper()
	certificate, err := meshtls.NewOutside(ca.Workload(t, "spiffe://cluster.local/ns/shop/sa/customer"))
	if err != nil {
		t.Fatal(err)
	}
	if roots, err = meshtls.NewRoots([]*x509.Certificate{ca.Certificate}); err != nil {
		t.Fatal(err)
	}
	return certificate, roots
}

func (w *world) setSecret(name string, identity *meshtls.Identity) {
	k := key{decode.SecretURL, name}
	w.values[k] = identity
	delete(w.errs, k)
	w.changed(k)
	w.pump()
}

func secretCluster() *discovery.Cluster {
	return &discovery.Cluster{Name: "c", EDSName: "c", TLS: &discovery.UpstreamTLS{
		TLSParams: discovery.TLSParams{IdentitySecret: "cert", RootSecret: "roots"},
	}}
}

func TestAClusterIsNotUsedWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld()
	published, stop := w.watchTarget()
	certificate, roots := secretsOf(t, tlstest.NewCA(t))
	w.set(apiListener("r"))
	w.set(routeTable("r", "c"))
	w.set(secretCluster())
	w.set(assignment("c"))
	w.pump()
	published.none(t)
	w.setSecret("cert", certificate)
	published.none(t)
	// What holds something else is as good as nothing, and says so.
	w.setSecret("roots", certificate)
	update := published.one(t)
	if update.Value != nil && update.Value.Clusters["c"].Err == nil {
		t.Fatalf("published %+v with a certificate in the place of roots", update.Value)
	}
	w.setSecret("roots", roots)
	update = published.one(t)
	got := update.Value.Clusters["c"]
	if update.Err != nil || got.Err != nil || got.Secrets["cert"] != certificate || got.Secrets["roots"] != roots {
		t.Fatalf("published %+v, error %v", got, update.Err)
	}

	// A successor is published with the same cluster.
	next, _ := secretsOf(t, tlstest.NewCA(t))
	w.setSecret("cert", next)
	successor := published.one(t).Value.Clusters["c"]
	if successor.Secrets["cert"] != next || successor.Cluster != got.Cluster {
		t.Errorf("published %+v, want the successor", successor)
	}
	// One that is withdrawn stays; that is told.
	w.fail(key{decode.SecretURL, "cert"}, notFound(key{decode.SecretURL, "cert"}), false)
	w.pump()
	if u := published.one(t); u.Err == nil || u.Value.Clusters["c"].Secrets["cert"] != next {
		t.Errorf("published %+v, error %v: want the secret with an ambient error", u.Value.Clusters["c"], u.Err)
	}
	// One that is taken away fails the cluster's calls, and nobody else's.
	w.fail(key{decode.SecretURL, "cert"}, notFound(key{decode.SecretURL, "cert"}), true)
	w.pump()
	if u := published.one(t); u.Value.Clusters["c"].Err == nil {
		t.Errorf("published %+v, want a cluster that cannot be used", u.Value.Clusters["c"])
	}
	stop()
	if got := w.watched(decode.SecretURL); len(got) != 0 {
		t.Errorf("secrets %q are watched", got)
	}
}

func TestAListenerIsNotPublishedWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld()
	published, stop := w.watchInbound()
	certificate, roots := secretsOf(t, tlstest.NewCA(t))
	resource := serverResource("")
	resource.Inbound.Default.TLS = &discovery.DownstreamTLS{
		TLSParams: discovery.TLSParams{IdentitySecret: "cert", RootSecret: "roots"},
	}
	w.set(resource)
	w.pump()
	published.none(t)
	w.fail(key{decode.SecretURL, "cert"}, notFound(key{decode.SecretURL, "cert"}), true)
	w.pump()
	if u := published.one(t); u.Value != nil || u.Err == nil || errors.Is(u.Err, discovery.ErrNotFound) {
		t.Errorf("published %+v, want why it waits", u)
	}
	w.setSecret("cert", certificate)
	published.none(t)
	w.setSecret("roots", roots)
	update := published.one(t)
	if update.Err != nil || update.Value == nil || update.Value.Secrets["cert"] != certificate || update.Value.Secrets["roots"] != roots {
		t.Fatalf("published %+v", update)
	}
	if resource.Inbound.Secrets != nil {
		t.Error("the decoded resource was changed")
	}
	// A successor changes nothing but the secrets.
	next, _ := secretsOf(t, tlstest.NewCA(t))
	w.setSecret("cert", next)
	if u := published.one(t); u.Value.Secrets["cert"] != next || u.Value.Default != update.Value.Default {
		t.Errorf("published %+v, want the successor", u)
	}
	// A listener that needs another one waits for it under the old policy.
	second := serverResource("")
	second.Inbound.Default.TLS = &discovery.DownstreamTLS{TLSParams: discovery.TLSParams{IdentitySecret: "other"}}
	w.set(second)
	w.pump()
	published.none(t)
	after, _ := secretsOf(t, tlstest.NewCA(t))
	w.setSecret("cert", after)
	if u := published.one(t); u.Value.Secrets["cert"] != after {
		t.Errorf("published %+v: the listener in force does not follow its secret", u)
	}
	w.setSecret("other", certificate)
	if u := published.one(t); u.Value.Secrets["other"] != certificate || len(u.Value.Secrets) != 1 {
		t.Errorf("published %+v, want the new listener", u)
	}
	if got := w.watched(decode.SecretURL); len(got) != 1 {
		t.Errorf("secrets %q are watched", got)
	}
	stop()
	if got := w.watched(decode.SecretURL); len(got) != 0 {
		t.Errorf("secrets %q are watched", got)
	}
}
