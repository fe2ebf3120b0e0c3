package controlplane

import (
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// bubble runs a test in fake time with a server in memory.
func bubble(t *testing.T, run func(t *testing.T, s *Server, dialled func() *deltaClient), files ...istio.File) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: files})
		network := serveMemory(t, s)
		conn := dial(t, network, "plaintext:1")
		run(t, s, func() *deltaClient { return newDelta(t, conn, node("shop", "customer")) })
	})
}

func TestDelta_AnswersAtOnceAndThenOnlyChanges(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(eds, cluster("payment"), cluster("ledger"))
		c.want(eds, []string{cluster("ledger"), cluster("payment")}, nil)
		c.quiet() // the ACK is up to date

		mustUpdate(t, s, service("payment", "10.0.0.1", "10.0.0.2"), service("ledger", "10.0.1.1"))
		c.want(eds, []string{cluster("payment")}, nil)
		c.quiet()

		// The same configuration again is no change.
		mustUpdate(t, s, service("payment", "10.0.0.1", "10.0.0.2"), service("ledger", "10.0.1.1"))
		c.quiet()
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
}

func TestDelta_SaysAtOnceWhatDoesNotExist(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(lds, host("payment")+":8080", host("absent")+":8080")
		c.want(lds, []string{host("payment") + ":8080"}, []string{host("absent") + ":8080"})
		c.quiet() // it is said once

		// What appears later is sent on the same stream.
		mustUpdate(t, s, service("payment", "10.0.0.1"), service("absent", "10.0.1.1"))
		c.want(lds, []string{host("absent") + ":8080"}, nil)

		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.want(lds, nil, []string{host("absent") + ":8080"})
		mustUpdate(t, s, service("payment", "10.0.0.1"), service("absent", "10.0.1.1"))
		c.want(lds, []string{host("absent") + ":8080"}, nil)
		c.quiet()
	}, service("payment", "10.0.0.1"))
}

func TestDelta_UnknownTypeHasNoResources(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe("type.googleapis.com/a.B", "x")
		c.want("type.googleapis.com/a.B", nil, []string{"x"})
		c.quiet()
	})
}

func TestDelta_SubscribingAgainSendsAgain(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(eds, cluster("payment"), cluster("ledger"))
		c.want(eds, []string{cluster("ledger"), cluster("payment")}, nil)
		// The client dropped it and wants it back, in one request or in two.
		c.subscribe(eds, cluster("payment"))
		c.want(eds, []string{cluster("payment")}, nil)
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesUnsubscribe: []string{cluster("payment")}})
		c.quiet()
		c.subscribe(eds, cluster("payment"))
		c.want(eds, []string{cluster("payment")}, nil)
		c.quiet()
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
}

func TestDelta_UnsubscribedIsNotSent(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(eds, cluster("payment"), cluster("ledger"))
		c.want(eds, []string{cluster("ledger"), cluster("payment")}, nil)
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesUnsubscribe: []string{cluster("payment")}})
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.2"), service("ledger", "10.0.1.1"))
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.3"), service("ledger", "10.0.1.2"))
		c.want(eds, []string{cluster("ledger")}, nil)
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
}

func TestDelta_ReconnectSendsOnlyWhatChangedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		first := dialled()
		first.subscribe(eds, cluster("payment"), cluster("ledger"), cluster("gone"))
		known := versions(first.want(eds, []string{cluster("gone"), cluster("ledger"), cluster("payment")}, nil))
		if err := first.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		mustUpdate(t, s, service("payment", "10.0.0.1"), service("ledger", "10.0.1.2"))
		time.Sleep(2 * removalDelay)

		second := dialled()
		second.send(&discovery.DeltaDiscoveryRequest{
			TypeUrl:                 eds,
			ResourceNamesSubscribe:  []string{cluster("payment"), cluster("ledger"), cluster("gone")},
			InitialResourceVersions: known,
		})
		second.want(eds, []string{cluster("ledger")}, []string{cluster("gone")})
		second.quiet()

		// With everything up to date there is nothing to say.
		third := dialled()
		known = map[string]string{cluster("payment"): known[cluster("payment")]}
		third.send(&discovery.DeltaDiscoveryRequest{
			TypeUrl:                 eds,
			ResourceNamesSubscribe:  []string{cluster("payment")},
			InitialResourceVersions: known,
		})
		third.quiet()
		for _, c := range s.Status().Clients {
			if state := c.Types[eds]; state.Sent == "" && !state.Current {
				t.Errorf("%+v, want a client that is up to date", state)
			}
		}
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"), service("gone", "10.0.2.1"))
}

func TestDelta_WildcardFollowsEverything(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(lds)
		c.want(lds, []string{host("payment") + ":8080"}, nil)
		mustUpdate(t, s, service("ledger", "10.0.1.1"))
		c.want(lds, []string{host("ledger") + ":8080"}, []string{host("payment") + ":8080"})
		c.quiet()
		// A wildcard can be given up.
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: lds, ResourceNamesSubscribe: []string{"x:1"}, ResourceNamesUnsubscribe: []string{"*"}})
		c.want(lds, nil, []string{"x:1"})
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.quiet()
	}, service("payment", "10.0.0.1"))
}

func TestDelta_WildcardWithNothingToShowIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(cds, "*")
		c.want(cds, nil, nil)
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.want(cds, []string{cluster("payment")}, nil)
		c.quiet()
	})
}

func TestDelta_EmptyFirstRequestForRoutesIsNoWildcard(t *testing.T) {
	bubble(t, func(_ *testing.T, _ *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(rds)
		c.subscribe(eds)
		c.quiet()
	}, service("payment", "10.0.0.1"))
}

func TestDelta_RejectedIsNotSentAgainUntilItChanges(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(cds, cluster("payment"), cluster("ledger"))
		c.nack(c.next(), "I do not like it")
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		time.Sleep(removalDelay)
		c.want(cds, nil, []string{cluster("ledger")})
		c.quiet()
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
}

func TestDelta_TypesShareAStreamAndComeInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		names := map[string]string{rds: cluster("payment"), lds: host("payment") + ":8080", eds: cluster("payment"), cds: cluster("payment")}
		for _, typeURL := range []string{rds, lds, eds, cds} {
			c.subscribe(typeURL, names[typeURL])
			c.want(typeURL, nil, []string{names[typeURL]})
		}
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		for _, typeURL := range []string{cds, eds, lds, rds} {
			c.want(typeURL, []string{names[typeURL]}, nil)
		}
		c.quiet()
	})
}

func TestDelta_ClustersGoAfterTheRoutesThatNameThem(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(cds, cluster("payment"))
		c.want(cds, []string{cluster("payment")}, nil)
		c.subscribe(lds, host("payment")+":8080")
		c.want(lds, []string{host("payment") + ":8080"}, nil)

		start := time.Now()
		mustUpdate(t, s)
		c.want(lds, nil, []string{host("payment") + ":8080"})
		c.quiet()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("listener went after %v", waited)
		}
		c.want(cds, nil, []string{cluster("payment")})
		if waited := time.Since(start); waited != removalDelay {
			t.Errorf("cluster went after %v, want %v", waited, removalDelay)
		}
		c.quiet()

		// What comes back in time has never been away.
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.want(cds, []string{cluster("payment")}, nil)
		c.want(lds, []string{host("payment") + ":8080"}, nil)
		mustUpdate(t, s)
		c.want(lds, nil, []string{host("payment") + ":8080"})
		time.Sleep(removalDelay / 2)
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.want(lds, []string{host("payment") + ":8080"}, nil)
		time.Sleep(2 * removalDelay)
		c.quiet()
		if retired := s.watches.current.Load().retired; len(retired) != 0 {
			t.Errorf("%d old configurations are kept", len(retired))
		}
	}, service("payment", "10.0.0.1"))
}

func TestStreamsThatBreakTheProtocolEnd(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Server, dialled func() *deltaClient) {
		for _, tt := range []struct {
			name    string
			send    func(c *deltaClient)
			code    codes.Code
			message string
		}{
			{"no node", func(c *deltaClient) {
				c.node = nil
				c.subscribe(lds, "x:1")
			}, codes.InvalidArgument, "the first request of a stream needs a node with an id"},
			{"metadata of another type", func(c *deltaClient) {
				c.node.Metadata.Fields["LABELS"] = c.node.Metadata.Fields["SERVICE_ACCOUNT"]
				c.subscribe(lds, "x:1")
			}, codes.InvalidArgument, "node metadata LABELS: want an object"},
			{"no type", func(c *deltaClient) { c.subscribe("", "x:1") }, codes.InvalidArgument, "type URL is required for ADS"},
			{"too many types", func(c *deltaClient) {
				for i := range maxTypes + 1 {
					c.subscribe("type.googleapis.com/t"+string(rune('a'+i)), "x")
				}
			}, codes.ResourceExhausted, "more than 16 types on a stream"},
		} {
			c := dialled()
			tt.send(c)
			synctest.Wait()
			if got := status.Convert(c.end()); got.Code() != tt.code || got.Message() != tt.message {
				t.Errorf("%s: got %v, want %v %q", tt.name, c.err, tt.code, tt.message)
			}
		}
	})
}
