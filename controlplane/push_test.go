package controlplane

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

func TestWhatIsPushedIsServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: shops(1, 1)})
		conn := dial(t, serveMemory(t, s), "plaintext:1")
		d, w := newDelta(t, conn, node("shop", "")), newSotw(t, conn, node("shop", ""))
		d.subscribe(cds)
		d.want(cds, []string{cluster("s0")}, nil)
		w.subscribe(cds, cluster("s0"))
		w.want(cds, []string{cluster("s0")}, cluster("s0"))

		a := &clusterv3.Cluster{Name: "a"}
		b := &clusterv3.Cluster{Name: "b"}
		if err := s.Push(a, b, &endpointv3.ClusterLoadAssignment{ClusterName: "a"}); err != nil {
			t.Fatal(err)
		}
		b.AltStatName = "changed after it was pushed"
		d.want(cds, []string{"a", "b"}, nil)
		d.want(cds, nil, []string{cluster("s0")}) // a second later
		w.want(cds, nil, cluster("s0"))
		d.subscribe(eds, "a")
		d.want(eds, []string{"a"}, nil)

		version := s.Status().Config.Version
		if err := s.Push(&clusterv3.Cluster{Name: "b"}, a, &endpointv3.ClusterLoadAssignment{ClusterName: "a"}); err != nil {
			t.Fatal(err)
		}
		if got := s.Status().Config.Version; got != version {
			t.Errorf("version %q of the same, want %q", got, version)
		}
		d.quiet()
		if err := s.Push(a, b, &endpointv3.ClusterLoadAssignment{ClusterName: "a"}); err != nil {
			t.Fatal(err)
		}
		d.want(cds, []string{"b"}, nil)

		mustUpdate(t, s, shops(1, 1)...)
		d.want(cds, []string{cluster("s0")}, nil)
		d.want(cds, nil, []string{"a", "b"})
	})
}

func TestWhatCannotBeServedIsNotPushed(t *testing.T) {
	t.Parallel()
	s := mustNew(t, Config{Files: shops(1, 1), Check: func(_ string, value []byte) error {
		if strings.Contains(string(value), "bad") {
			return errors.New("no client takes it")
		}
		return nil
	}})
	version := s.Status().Config.Version
	err := s.Push(&clusterv3.Cluster{Name: "a"}, &clusterv3.Cluster{Name: "a"}, &clusterv3.Cluster{}, &core.Node{Id: "n"}, nil,
		&listenerv3.Listener{Name: "bad"})
	for _, want := range []string{
		`push: resource 1: there is another Cluster "a"`, "resource 2: Cluster has no name",
		"resource 3: *corev3.Node is no resource that is served", "resource 4: <nil> is no resource that is served",
		`Listener "bad": no client takes it`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if got := s.Status().Config.Version; got != version || addresses(t, s, "s0") == "" {
		t.Errorf("version %q is served, want %q", got, version)
	}
	dir, reads, _ := watched(t)
	if err := reads.Push(&clusterv3.Cluster{Name: "a"}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}
