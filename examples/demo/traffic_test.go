package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// trafficTo sends traffic to a customer that answers so, until as many calls
// have ended, and returns them.
func trafficTo(t *testing.T, calls int, customer http.HandlerFunc, expected func(sample) bool) []sample {
	t.Helper()
	server := httptest.NewServer(customer)
	defer server.Close()
	tr := startTraffic(t.Context(), strings.TrimPrefix(server.URL, "http://"), customerID, 2000)
	tr.expect(expected)
	s := &story{traffic: tr}
	_, err := s.await(t.Context(), "calls", func() (bool, string) { return tr.count() >= calls, "" })
	tr.end()
	if err != nil {
		t.Fatal(err)
	}
	return tr.since(0)
}

func TestTrafficGoesBothWaysForEveryUser(t *testing.T) {
	t.Parallel()
	calls := trafficTo(t, 4*len(users), func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"via":%q,"version":"v1","caller":%q}`, r.FormValue("via"), customerID)
	}, nil)
	ways := make(map[string]bool)
	for _, one := range calls {
		if one.reply.Error != nil || one.took < 0 || one.took > time.Minute {
			t.Fatalf("%+v: %+v", one, one.reply.Error)
		}
		ways[one.user+" "+one.reply.Via] = true
	}
	if len(ways) != 2*(len(users)-1) { // ada is among them twice
		t.Errorf("ways %v", ways)
	}
}

func TestTrafficCountsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		customer http.HandlerFunc
		kind     string
		message  string
	}{
		{"a failure of the mesh", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, `{"error":{"kind":"reset","message":"gone"}}`)
		}, "reset", "gone"},
		{"a caller with another name", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"via":%q,"caller":"spiffe://elsewhere/x"}`, r.FormValue("via"))
		}, "wrong answer", `from "spiffe://elsewhere/x"`},
		{"an answer that is not JSON", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "oops", http.StatusInternalServerError)
		}, "customer", `500 Internal Server Error: "oops\n"`},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "customer", "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, one := range trafficTo(t, 10, tt.customer, nil) {
				if why := one.reply.Error; why == nil || why.Kind != tt.kind || !strings.Contains(why.Message, tt.message) || one.expected {
					t.Fatalf("%+v: %+v", one, why)
				}
			}
		})
	}
}

func TestTrafficKnowsExpectedFailures(t *testing.T) {
	t.Parallel()
	calls := trafficTo(t, 100, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("via") == "grpc" {
			fmt.Fprint(w, `{"error":{"kind":"overflow"}}`)
			return
		}
		fmt.Fprint(w, `{"error":{"kind":"reset"}}`)
	}, func(one sample) bool { return one.reply.Error.Kind == "overflow" })
	for _, one := range calls {
		if one.expected != (one.reply.Error.Kind == "overflow") {
			t.Fatalf("%+v: %+v", one, one.reply.Error)
		}
	}
}

func TestTrafficThatIsBrokenOffCountsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	called := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case called <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	defer server.Close()
	tr := startTraffic(ctx, strings.TrimPrefix(server.URL, "http://"), customerID, 2000)
	<-called
	cancel()
	tr.end()
	if n := tr.count(); n != 0 {
		t.Errorf("%d calls", n)
	}
}
