package controlplane

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func sotwBubble(t *testing.T, run func(t *testing.T, s *Server, dialled func() *sotwClient), files ...istio.File) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: files})
		network := serveMemory(t, s)
		conn := dial(t, network, "plaintext:1")
		run(t, s, func() *sotwClient { return newSotw(t, conn, node("shop", "customer")) })
	})
}

func TestStateOfTheWorld_AnswersAtOnceAndThenOnlyChanges(t *testing.T) {
	sotwBubble(t, func(t *testing.T, s *Server, dialled func() *sotwClient) {
		c := dialled()
		both := []string{cluster("ledger"), cluster("payment")}
		c.subscribe(eds, both...)
		c.want(eds, both, both...)
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1", "10.0.0.2"), service("ledger", "10.0.1.1"))
		c.want(eds, []string{cluster("payment")}, both...)
		c.quiet()
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
}

func TestStateOfTheWorld_ListenersAreCompleteAndMissingOnesDoNotExist(t *testing.T) {
	sotwBubble(t, func(t *testing.T, s *Server, dialled func() *sotwClient) {
		c := dialled()
		payment, absent := host("payment")+":8080", host("absent")+":8080"
		c.subscribe(lds, absent)
		c.want(lds, nil, absent)
		c.quiet()
		c.subscribe(lds, absent, payment)
		c.want(lds, []string{payment}, absent, payment)
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"), service("absent", "10.0.1.1"))
		c.want(lds, []string{absent, payment}, absent, payment) // all, not only the new one
		mustUpdate(t, s, service("absent", "10.0.1.1"))
		c.want(lds, []string{absent}, absent, payment)
		c.quiet()
	}, service("payment", "10.0.0.1"))
}

func TestStateOfTheWorld_SubscriptionsChange(t *testing.T) {
	sotwBubble(t, func(t *testing.T, s *Server, dialled func() *sotwClient) {
		c := dialled()
		payment, ledger := cluster("payment"), cluster("ledger")
		c.subscribe(eds, payment)
		c.want(eds, []string{payment}, payment)
		c.subscribe(eds, payment, ledger)
		c.want(eds, []string{ledger}, payment, ledger) // the other one it has
		c.subscribe(eds, ledger)
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.2"), service("ledger", "10.0.1.1"))
		c.quiet()
		c.subscribe(eds, ledger, payment)
		c.want(eds, []string{payment}, ledger, payment)

		// An empty list after names means nothing, and no nonce a new start.
		c.subscribe(eds)
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.3"), service("ledger", "10.0.1.3"))
		c.quiet()
		delete(c.last, eds)
		c.subscribe(eds, payment)
		c.want(eds, []string{payment}, payment)
		c.quiet()
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
}

func TestStateOfTheWorld_LosingAllListenersIsSilent(t *testing.T) {
	sotwBubble(t, func(t *testing.T, _ *Server, dialled func() *sotwClient) {
		c := dialled()
		payment := host("payment") + ":8080"
		c.subscribe(lds, payment)
		c.want(lds, []string{payment}, payment)
		c.subscribe(lds)
		c.quiet()
		c.subscribe(lds, payment)
		c.want(lds, []string{payment}, payment)
	}, service("payment", "10.0.0.1"))
}

func TestStateOfTheWorld_WildcardFollowsEverything(t *testing.T) {
	sotwBubble(t, func(t *testing.T, s *Server, dialled func() *sotwClient) {
		c := dialled()
		c.subscribe(cds)
		c.want(cds, nil)
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
		c.want(cds, []string{cluster("ledger"), cluster("payment")})
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.quiet()
		time.Sleep(removalDelay)
		c.want(cds, []string{cluster("payment")})
		c.quiet()
		c.subscribe(rds) // no wildcard
		c.quiet()
	})
}

func TestStateOfTheWorld_FirstRequestIsAnsweredWhateverItsVersion(t *testing.T) {
	sotwBubble(t, func(t *testing.T, _ *Server, dialled func() *sotwClient) {
		first := dialled()
		first.subscribe(eds, cluster("payment"))
		response := first.want(eds, []string{cluster("payment")}, cluster("payment"))
		second := dialled()
		second.version[eds] = response.GetVersionInfo()
		second.subscribe(eds, cluster("payment"))
		again := second.want(eds, []string{cluster("payment")}, cluster("payment"))
		if again.GetVersionInfo() != response.GetVersionInfo() {
			t.Errorf("versions %q and %q of the same content", response.GetVersionInfo(), again.GetVersionInfo())
		}
		second.quiet()
	}, service("payment", "10.0.0.1"))
}

func TestStateOfTheWorld_RejectedIsNotSentAgainUntilItChanges(t *testing.T) {
	sotwBubble(t, func(t *testing.T, s *Server, dialled func() *sotwClient) {
		c := dialled()
		c.subscribe(eds, cluster("payment"))
		c.last[eds] = c.next()
		c.request(eds, "I do not like it", cluster("payment"))
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.2"))
		c.want(eds, []string{cluster("payment")}, cluster("payment"))
		c.quiet()
	}, service("payment", "10.0.0.1"))
}

func TestStateOfTheWorld_TypesShareAStreamAndComeInOrder(t *testing.T) {
	sotwBubble(t, func(t *testing.T, s *Server, dialled func() *sotwClient) {
		c := dialled()
		listener := host("payment") + ":8080"
		c.subscribe(rds, cluster("payment"))
		c.subscribe(eds, cluster("payment"))
		c.quiet() // there is no way to say that routes do not exist
		c.subscribe(lds, listener)
		c.want(lds, nil, listener)
		c.subscribe(cds, cluster("payment"))
		c.want(cds, nil, cluster("payment"))
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.want(cds, []string{cluster("payment")}, cluster("payment"))
		c.want(eds, []string{cluster("payment")}, cluster("payment"))
		c.want(lds, []string{listener}, listener)
		c.want(rds, []string{cluster("payment")}, cluster("payment"))
		c.quiet()
	})
}

func TestStateOfTheWorld_StaleRequestsAreIgnored(t *testing.T) {
	sotwBubble(t, func(t *testing.T, s *Server, dialled func() *sotwClient) {
		c := dialled()
		c.subscribe(eds, cluster("payment"))
		first := c.want(eds, []string{cluster("payment")}, cluster("payment"))
		synctest.Wait()
		mustUpdate(t, s, service("payment", "10.0.0.2"), service("ledger", "10.0.1.1"))
		second := c.next()
		// Sent before the second response was read.
		c.last[eds] = first
		c.subscribe(eds, cluster("payment"), cluster("ledger"))
		c.quiet()
		c.last[eds], c.version[eds] = second, second.GetVersionInfo()
		c.subscribe(eds, cluster("payment"), cluster("ledger"))
		c.want(eds, []string{cluster("ledger")}, cluster("payment"), cluster("ledger"))
	}, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
}
