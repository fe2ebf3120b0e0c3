package jwt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter/jwt"
	"github.com/inboardmesh/inboard/internal/tokentest"
	"github.com/inboardmesh/inboard/observe"
)

// remoteFilter requires a token of the provider whose keys a server has.
func remoteFilter(t *testing.T, s *server, i *tokentest.Issuer, change func(*discovery.JWTRemoteKeys)) (*jwt.Filter, *jwt.Store) {
	t.Helper()
	store := jwt.NewStore(s.fetch, &observe.Hooks{})
	f, err := store.Filter(config(required("p"), map[string]*discovery.JWTProvider{"p": remoteProvider(t, i, change)}))
	if err != nil {
		t.Fatal(err)
	}
	return f, store
}

func TestV32_G21_WithoutKeysEveryTokenIsRefused(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	known := bytes.Repeat([]byte("k"), 64)
	secret := object{"kty": "oct", "kid": "rsa", "k": tokentest.Encode(known)}
	for name, test := range map[string]struct {
		document string
		err      error
	}{
		"down":                   {err: errors.New("connection refused")},
		"status 500":             {err: errors.New("status 500")},
		"a page":                 {document: "<html>"},
		"nothing":                {document: ""},
		"no keys":                {document: `{"keys":[]}`},
		"an object":              {document: `{}`},
		"keys that are not ours": {document: tokentest.New("x").Keys()},
		"only a secret":          {document: tokentest.KeySet(secret)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newIssuer()
				s.serve(test.document, test.err)
				f, store := remoteFilter(t, s, i, nil)
				defer store.Close()
				for range 50 {
					if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 401 {
						t.Fatalf("a good token: %d", got)
					}
					if got := status(t, f, exchange(bearer(tokentest.SignSecret(known, object{"alg": "HS256", "kid": "rsa"}, i.Claims(nil))))); got != 401 {
						t.Fatalf("a token that anybody could sign: %d", got)
					}
				}
				s.serve(i.Keys(), nil)
				pause := time.Second
				if name == "keys that are not ours" { // which are keys
					pause = 11 * time.Minute
				}
				time.Sleep(pause)
				if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 200 {
					t.Errorf("when the keys are there again: %d", got)
				}
			})
		})
	}
}

// TestV34_TwoTokensWhoseKeysAreFetched: whichever comes first, all must be good.
func TestV34_TwoTokensWhoseKeysAreFetched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := tokentest.New(tokentest.Name)
		good, other := i.Token(nil), i.Token(object{"sub": "other"})
		bad, unknown := i.Token(object{"exp": 1}), tokentest.New("https://unknown.test").Token(nil)
		for _, tt := range []struct {
			tokens []string
			want   int
		}{
			{[]string{good, good}, 200},
			{[]string{good, other}, 200},
			{[]string{good, bad}, 401}, {[]string{bad, good}, 401},
			{[]string{good, unknown}, 401}, {[]string{unknown, good}, 401},
			{[]string{good, "x"}, 401}, {[]string{"x", good}, 401},
			{[]string{good, ""}, 401}, {[]string{"", good}, 401},
			{[]string{bad, bad}, 401},
		} {
			s := newIssuer()
			s.serve(i.Keys(), nil)
			f, store := remoteFilter(t, s, i, nil) // keys that were not fetched yet
			for range 2 {
				if got := status(t, f, exchange(bearer(tt.tokens...))); got != tt.want {
					t.Errorf("%.20q: %d, want %d", tt.tokens, got, tt.want)
				}
			}
			store.Close()
		}
	})
}

// TestV53_ARefusalTellsNothingOfTheFailure: not who was asked, nor why in vain.
func TestV53_ARefusalTellsNothingOfTheFailure(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	s := newIssuer()
	s.serve("", errors.New("dial 10.1.2.3:443: certificate of CN=secret"))
	f, store := remoteFilter(t, s, i, nil)
	defer store.Close()
	answer, err := f.Request(t.Context(), exchange(bearer(i.Token(nil))))
	if err != nil || answer == nil {
		t.Fatal(answer, err)
	}
	text := fmt.Sprint(answer.Status, string(answer.Body), answer.Reason, answer.Headers)
	for _, part := range []string{"10.1.2.3", "secret", "issuer.test", "dial", i.Name} {
		if strings.Contains(text, part) {
			t.Errorf("%q is told in %q", part, text)
		}
	}
}

func TestV32_ExpiredKeysVerifyNothing(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	for _, async := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newIssuer()
			s.serve(i.Keys(), nil)
			f, store := remoteFilter(t, s, i, func(r *discovery.JWTRemoteKeys) { r.Async = async })
			defer store.Close()
			if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 200 {
				t.Fatalf("at first: %d", got)
			}
			s.serve("", errors.New("down"))
			time.Sleep(9 * time.Minute)
			if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 200 {
				t.Errorf("before they expire: %d", got)
			}
			time.Sleep(2 * time.Minute)
			want := 401
			if async {
				want = 200 // that is what it is for
			}
			raw := i.Token(nil)
			for range 3 {
				if got := status(t, f, exchange(bearer(raw))); got != want {
					t.Errorf("async %v, expired: %d, want %d", async, got, want)
				}
			}
			s.serve(i.Keys(), nil)
			time.Sleep(time.Second)
			if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 200 {
				t.Errorf("fetched again: %d", got)
			}
		})
	}
}

// TestKeysAreAsOldAsTheConfigurationSays, and after a fetch that failed there is the
// pause that it says.
func TestKeysAreAsOldAsTheConfigurationSays(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		s := newIssuer()
		s.serve(i.Keys(), nil)
		f, store := remoteFilter(t, s, i, func(r *discovery.JWTRemoteKeys) {
			r.CacheDuration, r.FailedRefetch = time.Minute, 30*time.Second
		})
		defer store.Close()
		for _, step := range []struct {
			name    string
			after   time.Duration
			down    bool
			status  int
			fetched int
		}{
			{"at first", 0, false, 200, 1},
			{"before it is time", 47 * time.Second, false, 200, 1},
			{"when they expire soon", 2 * time.Second, true, 200, 2},
			{"when they have expired", 11 * time.Second, true, 401, 2},
			{"before the pause is over", 18 * time.Second, false, 401, 2},
			{"after the pause", time.Second, false, 200, 3},
		} {
			time.Sleep(step.after)
			s.serve(i.Keys(), nil)
			if step.down {
				s.serve("", errors.New("down"))
			}
			if got := status(t, f, exchange(bearer(i.Token(nil)))); got != step.status {
				t.Errorf("%s: %d, want %d", step.name, got, step.status)
			}
			synctest.Wait()
			if got := s.fetches(); got != step.fetched {
				t.Errorf("%s: %d fetches, want %d", step.name, got, step.fetched)
			}
		}
	})
}

func TestV37_G21_UnknownKeyIDsDoNotHammerTheIssuer(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		s := newIssuer()
		s.serve(i.Keys(), nil)
		f, store := remoteFilter(t, s, i, nil)
		defer store.Close()
		status(t, f, exchange(bearer(i.Token(nil))))
		const tokens, seconds = 10_000, 100
		for n := range tokens {
			raw := i.SignEd(object{"alg": "EdDSA", "kid": fmt.Sprint("unknown", n)}, i.Claims(nil))
			if got := status(t, f, exchange(bearer(raw))); got != 401 {
				t.Fatalf("accepted: %d", got)
			}
			if n%(tokens/seconds) == 0 {
				time.Sleep(time.Second)
			}
		}
		if got := s.fetches(); got > 10 {
			t.Errorf("%d fetches in %d s", got, seconds)
		}
		s.mu.Lock()
		times := s.times
		s.mu.Unlock()
		for n := 1; n < len(times); n++ {
			if d := times[n].Sub(times[n-1]); d < time.Second {
				t.Errorf("fetches %v apart", d)
			}
		}
		// The issuer really changes its keys: at most a minute later its tokens are
		// accepted.
		next := tokentest.New(tokentest.Name)
		s.serve(tokentest.KeySet(next.RSAKey("next")), nil)
		raw := next.SignRSA(object{"alg": "RS256", "kid": "next"}, next.Claims(nil))
		time.Sleep(time.Minute)
		if got := status(t, f, exchange(bearer(raw))); got != 200 {
			t.Errorf("a token of the new key: %d", got)
		}
		if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 401 {
			t.Errorf("a token of the old key: %d", got)
		}
	})
}

func TestANewKeyIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	old, next := tokentest.New(tokentest.Name), tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		s := newIssuer()
		s.serve(tokentest.KeySet(old.RSAKey("old")), nil)
		f, store := remoteFilter(t, s, old, nil)
		defer store.Close()
		of := func(i *tokentest.Issuer, id string) int {
			return status(t, f, exchange(bearer(i.SignRSA(object{"alg": "RS256", "kid": id}, i.Claims(nil)))))
		}
		if got := of(old, "old"); got != 200 {
			t.Fatalf("the old key: %d", got)
		}
		time.Sleep(time.Minute)
		s.serve(tokentest.KeySet(old.RSAKey("old"), next.RSAKey("next")), nil)
		if got := of(next, "next"); got != 200 {
			t.Errorf("the new key: %d", got)
		}
		if got := of(old, "old"); got != 200 {
			t.Errorf("the old key beside it: %d", got)
		}
		if got := s.fetches(); got != 2 {
			t.Errorf("%d fetches", got)
		}
	})
}

func TestKeysAreFetchedAheadOfTheirExpiry(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		s := newIssuer()
		s.serve(i.Keys(), nil)
		f, store := remoteFilter(t, s, i, nil)
		defer store.Close()
		raw := i.Token(object{"exp": time.Now().Add(24 * time.Hour).Unix()})
		for range 100 {
			if got := status(t, f, exchange(bearer(raw))); got != 200 {
				t.Fatal(got)
			}
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if got := s.fetches(); got < 11 || got > 13 {
			t.Errorf("%d fetches in 100 min", got)
		}
		// What nobody uses is not fetched.
		before := s.fetches()
		time.Sleep(10 * time.Hour)
		if got := s.fetches(); got != before {
			t.Errorf("%d fetches for nobody", got-before)
		}
	})
}

func TestRequestsWaitForTheSameFetch(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		s := newIssuer()
		release := make(chan struct{})
		store := jwt.NewStore(func(ctx context.Context, from *discovery.JWTRemoteKeys) ([]byte, error) {
			<-release
			return s.fetch(ctx, from)
		}, noHooks())
		defer store.Close()
		s.serve(i.Keys(), nil)
		f, err := store.Filter(config(required("p"), map[string]*discovery.JWTProvider{"p": remoteProvider(t, i, nil)}))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 200 {
					t.Errorf("%d", got)
				}
			})
		}
		// One that has less time goes.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if answer, err := f.Request(ctx, exchange(bearer(i.Token(nil)))); !errors.Is(err, context.DeadlineExceeded) || answer != nil {
			t.Errorf("answer %v, error %v", answer, err)
		}
		close(release)
		wg.Wait()
		if got := s.fetches(); got != 1 {
			t.Errorf("%d fetches", got)
		}
	})
}

func TestFetchesAreBounded(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		s := newIssuer()
		s.hang = true
		f, store := remoteFilter(t, s, i, func(r *discovery.JWTRemoteKeys) {
			r.Retries, r.RetryBase, r.RetryMax = 2, time.Second, 10*time.Second
		})
		start := time.Now()
		if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 401 {
			t.Errorf("%d", got)
		}
		if d := time.Since(start); d < 15*time.Second || d > 20*time.Second || s.fetches() != 3 {
			t.Errorf("%d attempts in %v", s.fetches(), d)
		}
		// Close does not wait for one that hangs.
		time.Sleep(time.Minute)
		done := make(chan struct{})
		go func() {
			defer close(done)
			status(t, f, exchange(bearer(i.Token(nil))))
		}()
		synctest.Wait()
		start = time.Now()
		store.Close()
		<-done
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 401 {
			t.Errorf("closed: %d", got)
		}
	})
}

func TestAsyncFetchesBeforeTheFirstRequest(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		var events []observe.KeysEvent
		s := newIssuer()
		s.serve(i.Keys(), nil)
		store := jwt.NewStore(s.fetch, &observe.Hooks{KeysFetched: func(e observe.KeysEvent) { events = append(events, e) }})
		defer store.Close()
		p := remoteProvider(t, i, func(r *discovery.JWTRemoteKeys) { r.Async = true })
		for range 3 { // versions of a configuration share the keys
			if _, err := store.Filter(config(required("p"), map[string]*discovery.JWTProvider{"p": p})); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := s.fetches(); got != 1 {
			t.Errorf("%d fetches", got)
		}
		if len(events) != 1 || events[0].Keys != 3 || events[0].Host != "issuer.test" || events[0].Cluster != "issuer" || events[0].Err != nil {
			t.Errorf("%+v", events)
		}
	})
}

func TestAKeyThatIsWithdrawnVerifiesNothingFromTheCache(t *testing.T) {
	t.Parallel()
	old, next := tokentest.New(tokentest.Name), tokentest.New(tokentest.Name)
	synctest.Test(t, func(t *testing.T) {
		s := newIssuer()
		s.serve(old.Keys(), nil)
		f, store := remoteFilter(t, s, old, nil)
		defer store.Close()
		raw := old.Token(object{"exp": time.Now().Add(time.Hour).Unix()})
		for range 3 {
			if got := status(t, f, exchange(bearer(raw))); got != 200 {
				t.Fatal(got)
			}
		}
		s.serve(next.Keys(), nil)
		time.Sleep(9 * time.Minute)
		status(t, f, exchange(bearer(raw))) // has them fetched
		synctest.Wait()
		if got := status(t, f, exchange(bearer(raw))); got != 401 {
			t.Errorf("a cached token of a withdrawn key: %d", got)
		}
	})
}
