package istioca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/istioca"
)

func TestTheFirstCertificateIsAskedForByToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.config.Lifetime = 90*time.Minute + time.Millisecond
		f.config.ClusterID = "cluster-1"
		f.start(t)
		source := f.newSource(t)

		identity, err := source.Identity()
		if err != nil || identity.ID.String() != workloadID || identity.Roots == nil {
			t.Fatalf("got %+v, %v", identity, err)
		}
		requests := f.seen()
		if len(requests) != 1 {
			t.Fatalf("%d requests, want one", len(requests))
		}
		r := requests[0]
		if r.token != secret || r.peer != "" || r.clusterID != "cluster-1" || r.validity != 90*time.Minute+time.Second {
			t.Errorf("got %+v", r)
		}
		key, ok := identity.Certificate.PrivateKey.(*ecdsa.PrivateKey)
		if !ok || !key.PublicKey.Equal(r.public) || key.Curve.Params().BitSize != 256 {
			t.Errorf("the key %T is not that of the request", identity.Certificate.PrivateKey)
		}
		events := f.reported()
		if len(events) != 1 || events[0].Source != "default" || events[0].ID != workloadID || events[0].Err != nil || !events[0].NotAfter.Equal(identity.NotAfter) {
			t.Errorf("reported %+v", events)
		}
	})
}

func TestDefaultsAreSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.start(t)
		f.newSource(t)
		if r := f.seen()[0]; r.validity != istioca.DefaultLifetime || r.clusterID != "" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestRenewalComesBetweenOneHalfAndTwoThirdsOfTheLife(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		lifetime  time.Duration
		backdated time.Duration
		latest    time.Duration
	}{
		{"an hour", time.Hour, 0, 40 * time.Minute},
		{"a day, and NotBefore two minutes ago", 24 * time.Hour, 2 * time.Minute, 16*time.Hour - 40*time.Second},
		{"ten seconds, and NotBefore two minutes ago", 10 * time.Second, 2 * time.Minute, 20 * time.Second / 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.answer = func(_ request, csr *x509.CertificateRequest) ([]string, error) {
					return f.sign(csr, tlstest.Leaf{
						NotBefore: time.Now().Add(-test.backdated), NotAfter: time.Now().Truncate(time.Second).Add(test.lifetime),
					}), nil
				}
				f.start(t)
				f.newSource(t)
				time.Sleep(50 * test.lifetime)
				requests := f.seen()
				if len(requests) < 75 {
					t.Fatalf("%d requests", len(requests))
				}
				first, last := time.Duration(1<<62), time.Duration(0)
				keys := make(map[string]bool)
				for i, r := range requests {
					public, err := r.public.(*ecdsa.PublicKey).Bytes()
					if err != nil {
						t.Fatal(err)
					}
					keys[string(public)] = true
					if i == 0 {
						continue
					}
					pause := r.at.Sub(requests[i-1].at)
					first, last = min(first, pause), max(last, pause)
					if r.peer != workloadID || r.token != "" {
						t.Fatalf("request %d: got %+v, want it to be authenticated by the certificate alone", i, r)
					}
				}
				// X.509 counts in seconds: the CA cut up to one off.
				if earliest := (test.lifetime - time.Second) / 2; first < earliest || last > test.latest {
					t.Errorf("renewed after %v to %v, want %v to %v", first, last, earliest, test.latest)
				}
				if spread := test.latest - test.lifetime/2; last-first < spread/2 {
					t.Errorf("renewed after %v to %v: that is hardly random", first, last)
				}
				if len(keys) != len(requests) {
					t.Errorf("%d keys for %d requests", len(keys), len(requests))
				}
			})
		})
	}
}

func TestVeryShortLifetimesNeverLeaveAGap(t *testing.T) {
	t.Parallel()
	for _, lifetime := range []time.Duration{time.Second, 2 * time.Second} {
		t.Run(lifetime.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.answer = func(_ request, csr *x509.CertificateRequest) ([]string, error) {
					// Rounded up, as a CA must that issues for a second.
					return f.sign(csr, tlstest.Leaf{
						NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(lifetime + time.Second - 1).Truncate(time.Second),
					}), nil
				}
				f.start(t)
				source := f.newSource(t)
				for range 3000 {
					time.Sleep(10 * time.Millisecond)
					if _, err := source.Identity(); err != nil {
						t.Fatal(err)
					}
				}
				if n := len(f.seen()); n < int(30*time.Second/lifetime) || n > 300 {
					t.Errorf("%d requests in 30 s", n)
				}
			})
		})
	}
}

func TestACAThatIsAwayIsAskedAgainUntilTheCertificateExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		stop := f.start(t)
		source := f.newSource(t)
		first, err := source.Identity()
		if err != nil {
			t.Fatal(err)
		}
		stop()

		changed := source.Changed()
		time.Sleep(time.Until(first.NotAfter))
		if now, err := source.Identity(); err != nil || now != first {
			t.Fatalf("got %v, want the old certificate until it expires", err)
		}
		select {
		case <-changed:
			t.Error("nothing changed yet")
		default:
		}
		events := f.reported()
		if n := len(events); n < 40 || n > 200 {
			t.Errorf("%d attempts in at least 20 minutes, want one at most every 15 to 30 s in the end", n-1)
		}
		for _, event := range events[1:] {
			if event.Err == nil || event.ID != workloadID || !strings.Contains(event.Err.Error(), `istio_ca: certificate from "passthrough:///ca.test:15012": `) ||
				!strings.Contains(event.Err.Error(), "connection refused") {
				t.Fatalf("got %+v", event)
			}
		}

		time.Sleep(time.Nanosecond)
		synctest.Wait()
		<-changed
		_, err = source.Identity()
		if err == nil || !strings.Contains(err.Error(), `istio_ca: certificate of "`+workloadID+`" expired at `) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)

		changed = source.Changed()
		f.set(func() { f.requests = nil })
		f.start(t)
		<-changed
		if now, err := source.Identity(); err != nil || now == first {
			t.Errorf("got %v, want a new certificate", err)
		}
		if r := f.seen()[0]; r.token != secret || r.peer != "" {
			t.Errorf("got %+v: an expired certificate cannot authenticate", r)
		}
	})
}

func TestRetriesAreSpreadAndGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.answer = func(request, *x509.CertificateRequest) ([]string, error) {
			return nil, status.Error(codes.ResourceExhausted, "slow down")
		}
		f.start(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := istioca.New(ctx, f.config); err == nil {
			t.Fatal("got a source without a certificate")
		}
		requests := f.seen()
		limit := 200 * time.Millisecond
		for i := 1; i < len(requests); i++ {
			if pause := requests[i].at.Sub(requests[i-1].at); pause < limit/2 || pause > limit {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, limit/2, limit)
			}
			limit = min(2*limit, 30*time.Second)
		}
		if n := len(requests); n < 20 {
			t.Errorf("%d requests in ten minutes", n)
		}
	})
}

func TestARefusedCertificateFallsBackToTheToken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		// refuse makes the CA refuse certificates of its own.
		refuse func(t *testing.T, f *fake)
		// asked tells whether the refused certificate reached the service.
		asked bool
	}{
		{"by the service", func(_ *testing.T, f *fake) {
			f.answer = func(r request, csr *x509.CertificateRequest) ([]string, error) {
				if r.peer != "" {
					return nil, status.Error(codes.Unauthenticated, "unknown client")
				}
				return f.sign(csr, tlstest.Leaf{}), nil
			}
		}, true},
		{"by TLS, of a CA that lost its root", func(t *testing.T, f *fake) {
			f.root = tlstest.NewCA(t)
			f.issuer = f.root
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.start(t)
				source := f.newSource(t)
				first, err := source.Identity()
				if err != nil {
					t.Fatal(err)
				}
				f.set(func() {
					f.requests = nil
					test.refuse(t, f)
				})
				<-source.Changed()
				second, err := source.Identity()
				if err != nil || second == first {
					t.Fatalf("got %v", err)
				}
				requests := f.seen()
				last := requests[len(requests)-1]
				if last.token != secret || last.peer != "" {
					t.Errorf("got %+v, want the token", last)
				}
				if asked := len(requests) == 2 && requests[0].peer == workloadID; asked != test.asked {
					t.Errorf("got %+v", requests)
				}
				for _, event := range f.reported() {
					if event.Err != nil {
						t.Errorf("reported %v", event.Err)
					}
				}
			})
		})
	}
}

func TestWhenBothAreRefusedTheErrorHasBothReasons(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.start(t)
		source := f.newSource(t)
		f.set(func() {
			f.answer = func(r request, _ *x509.CertificateRequest) ([]string, error) {
				if r.peer != "" {
					return nil, status.Error(codes.PermissionDenied, "certificate revoked")
				}
				return nil, status.Error(codes.Unauthenticated, "token expired")
			}
		})
		time.Sleep(45 * time.Minute)
		if _, err := source.Identity(); err != nil {
			t.Error(err)
		}
		events := f.reported()
		err := events[len(events)-1].Err
		if err == nil || !strings.Contains(err.Error(), "by the token: rpc error: code = Unauthenticated desc = token expired (has the token in "+strconv.Quote(f.config.TokenFile)+" expired? put a new one there); by the current certificate: rpc error: code = PermissionDenied desc = certificate revoked") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOtherErrorsDoNotSendTheToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.start(t)
		f.newSource(t)
		f.set(func() {
			f.requests = nil
			f.answer = func(request, *x509.CertificateRequest) ([]string, error) {
				return nil, status.Error(codes.Internal, "disk full")
			}
		})
		time.Sleep(45 * time.Minute)
		for _, r := range f.seen() {
			if r.token != "" {
				t.Fatalf("got %+v", r)
			}
		}
	})
}

func TestTheTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.start(t)
		f.token = "rotated"
		time.AfterFunc(10*time.Second, func() { write(t, f.config.TokenFile, "rotated") })
		f.newSource(t)
		if events := f.reported(); len(events) < 2 || !strings.Contains(events[0].Err.Error(), "authentication failure") {
			t.Errorf("reported %+v", events)
		}
	})
}

func TestTheRootFileIsReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.start(t)
		source := f.newSource(t)
		other := tlstest.NewCA(t)
		f.writeRoots(t, f.root, other)
		f.set(func() { f.serving = other })
		<-source.Changed()
		if n := len(f.seen()); n != 2 {
			t.Errorf("%d requests, want the second to be right", n)
		}
	})
}

func TestTheRootsOfThePeersAreThoseOfTheReply(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.start(t)
		source := f.newSource(t)
		before, err := source.Identity()
		if err != nil {
			t.Fatal(err)
		}
		// The next CA, announced beside the old one, signs through an intermediate.
		next := tlstest.NewCA(t)
		f.set(func() {
			old := f.root
			f.issuer = next.Intermediate(t)
			f.answer = func(_ request, csr *x509.CertificateRequest) ([]string, error) {
				chain := f.sign(csr, tlstest.Leaf{})
				both := tlstest.CertificatePEM(old.Certificate.Raw, next.Certificate.Raw)
				return append(chain[:len(chain)-1], string(both)), nil
			}
		})
		<-source.Changed()
		after, err := source.Identity()
		if err != nil {
			t.Fatal(err)
		}
		if after.RootsKey == before.RootsKey || len(after.Certificate.Certificate) != 2 {
			t.Errorf("%d certificates, roots changed: %v", len(after.Certificate.Certificate), after.RootsKey != before.RootsKey)
		}
		for _, ca := range []*tlstest.CA{f.root, next} {
			peer := ca.Workload(t, workloadID)
			leaf, err := x509.ParseCertificate(peer.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: after.Roots, CurrentTime: time.Now()}); err != nil {
				t.Errorf("a peer of one of the roots: %v", err)
			}
		}
	})
}

// TestV26_AnUnverifiedCAGetsNoToken: without the right root, or with another
// name, there is no connection, and the token does not leave.
func TestV26_AnUnverifiedCAGetsNoToken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(t *testing.T, f *fake)
		want   string
	}{
		{"another root", func(t *testing.T, f *fake) { f.writeRoots(t, tlstest.NewCA(t)) }, "certificate signed by unknown authority"},
		{"no root file", func(_ *testing.T, f *fake) { f.config.RootFile = "" }, "certificate signed by unknown authority"},
		{"another name", func(_ *testing.T, f *fake) { f.config.ServerName = "other.test" }, "not other.test"},
		{"a root file that is missing", func(_ *testing.T, f *fake) { f.config.RootFile += ".not" }, "root_file: open "},
		{"a root file without certificates", func(t *testing.T, f *fake) { write(t, f.config.RootFile, "") }, "no certificate"},
		{"a root file with junk", func(t *testing.T, f *fake) { write(t, f.config.RootFile, "junk") }, "text that is not PEM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				test.change(t, f)
				f.start(t)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				_, err := istioca.New(ctx, f.config)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if n := len(f.seen()); n != 0 {
					t.Errorf("%d requests reached the CA", n)
				}
			})
		})
	}
}

func TestNewSaysWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(t *testing.T, f *fake)
		want   string
	}{
		{"an absent CA", func(*testing.T, *fake) {}, "connection refused"},
		{"no token", func(_ *testing.T, f *fake) { f.config.TokenFile += ".not" }, "token_file: open "},
		{"an empty token", func(t *testing.T, f *fake) { write(t, f.config.TokenFile, " \n") }, " is empty"},
		{"a token that is refused", func(t *testing.T, f *fake) {
			write(t, f.config.TokenFile, "wrong-"+secret)
			f.start(t)
		}, "code = Unauthenticated desc = authentication failure (has the token in "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				test.change(t, f)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				_, err := istioca.New(ctx, f.config)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), test.want) ||
					!strings.HasPrefix(err.Error(), "first certificate: ") {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if waited := time.Since(start); waited != time.Minute {
					t.Errorf("waited %v", waited)
				}
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the token is in the error: %v", err)
				}
			})
		})
	}
}

func TestCloseEndsTheRenewalAndKeepsTheCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.start(t)
		source := f.newSource(t)
		source.Close()
		source.Close()
		time.Sleep(59 * time.Minute)
		if _, err := source.Identity(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := source.Identity(); err == nil || !strings.Contains(err.Error(), "expired at") {
			t.Errorf("got %v", err)
		}
		if n := len(f.seen()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestCloseDoesNotWaitForAFrozenCA(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		stop := f.start(t)
		source := f.newSource(t)
		stop()
		frozen, err := f.network.Listen(address) // accepts nothing, says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer frozen.Close()
		time.Sleep(40 * time.Minute)
		start := time.Now()
		source.Close()
		if waited := time.Since(start); waited > 0 {
			t.Errorf("Close took %v", waited)
		}
	})
}
