package keeper_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/internal/keeper"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const paymentID = "spiffe://cluster.local/ns/shop/sa/payment"

// newIdentity is one that is valid for an hour.
func newIdentity(t *testing.T, ca *tlstest.CA) *meshtls.Identity {
	t.Helper()
	identity, err := meshtls.NewIdentity(ca.Workload(t, paymentID), nil)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func TestAnIdentityIsKeptUntilItExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		var events []error
		k := keeper.New("test", "unix:///agent", "default", func(e observe.CertificateEvent) { events = append(events, e.Err) })
		defer k.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		k.Fail(errors.New("it is not there"))
		if err := k.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it is not there") {
			t.Errorf("waited: %v", err)
		}
		first := newIdentity(t, ca)
		if !k.Set(first) || k.Set(first) {
			t.Error("a new identity is news once")
		}
		k.Fail(errors.New("it has gone"))
		if got, err := k.Identity(); got != first || err != nil {
			t.Errorf("after a failure: %v, %v", got, err)
		}
		// The successor comes in time, and expires without one.
		time.Sleep(59 * time.Minute)
		second := newIdentity(t, ca)
		if !k.Set(second) {
			t.Error("a successor is news")
		}
		changed := k.Changed()
		time.Sleep(59 * time.Minute)
		if got, err := k.Identity(); got != second || err != nil {
			t.Errorf("in its life: %v, %v", got, err)
		}
		<-changed
		synctest.Wait()
		if got, err := k.Identity(); got != nil || err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after its end: %v, %v", got, err)
		}
		if len(events) != 3 { // two failures and one expiry: Set reports nothing itself
			t.Errorf("events %v", events)
		}
	})
}

func TestAClosedKeeperChangesNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		k := keeper.New("test", "unix:///agent", "default", nil)
		first := newIdentity(t, ca)
		k.Set(first)
		k.Close()
		if k.Set(newIdentity(t, ca)) {
			t.Error("a closed keeper takes an identity over")
		}
		if got, err := k.Identity(); got != first || err != nil {
			t.Errorf("%v, %v", got, err)
		}
		time.Sleep(2 * time.Hour)
		if got, err := k.Identity(); got != nil || err == nil {
			t.Errorf("an expired identity is given out: %v, %v", got, err)
		}
	})
}
