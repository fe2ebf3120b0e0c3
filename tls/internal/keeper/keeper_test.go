package keeper_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
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
		k := keeper.New(keeper.Config{Plugin: "test", OnChange: func(e observe.CertificateEvent) { events = append(events, e.Err) }})
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
		k := keeper.New(keeper.Config{Plugin: "test", OnChange: nil})
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

func TestAnExpiredCertificateIsToldWithWhyNoOtherCame(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		before func(k *keeper.Keeper, same *meshtls.Identity)
		want   string
	}{
		{"nothing was tried", func(*keeper.Keeper, *meshtls.Identity) {}, ": nobody has asked"},
		{"an attempt failed", func(k *keeper.Keeper, _ *meshtls.Identity) { k.Fail(errors.New("it has gone")) }, ": test: it has gone"},
		{"an attempt failed, and the next brought the same", func(k *keeper.Keeper, same *meshtls.Identity) {
			k.Fail(errors.New("it has gone"))
			k.Set(same)
		}, ": nobody has asked"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var told atomic.Value // the last text
				k := keeper.New(keeper.Config{
					Plugin: "test", Unreplaced: "nobody has asked", OnChange: func(e observe.CertificateEvent) { told.Store(e.Err.Error()) },
				})
				defer k.Close()
				identity := newIdentity(t, tlstest.NewCA(t))
				k.Set(identity)
				test.before(k, identity)
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if _, err := k.Identity(); err == nil || !strings.HasSuffix(err.Error(), test.want) || told.Load() != err.Error() {
					t.Errorf("error %v, told %v; want that it ends with %q", err, told.Load(), test.want)
				}
			})
		})
	}
}

func TestAClosedKeeperHasNothingToTell(t *testing.T) {
	t.Parallel()
	k := keeper.New(keeper.Config{Plugin: "test", OnChange: func(e observe.CertificateEvent) { t.Errorf("told %v", e) }})
	k.Close()
	k.Fail(context.Canceled)
}

// Nothing is told once Close has returned, not even what was about to be.
func TestCloseWaitsForWhatIsBeingToldOfAnExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Bool
		telling := make(chan struct{})
		k := keeper.New(keeper.Config{Plugin: "test", OnChange: func(observe.CertificateEvent) {
			close(telling)
			time.Sleep(time.Second)
			told.Store(true)
		}})
		k.Set(newIdentity(t, tlstest.NewCA(t)))
		<-telling
		k.Close()
		if !told.Load() {
			t.Error("Close has returned before")
		}
	})
}

func TestRootsAloneDoNotExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keeper.New(keeper.Config{Plugin: "test"})
		defer k.Close()
		roots, err := meshtls.NewRoots([]*x509.Certificate{tlstest.NewCA(t).Certificate})
		if err != nil {
			t.Fatal(err)
		}
		k.Set(roots)
		time.Sleep(24 * time.Hour)
		if got, err := k.Identity(); got != roots || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
}
