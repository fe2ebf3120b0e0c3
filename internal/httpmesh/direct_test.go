package httpmesh

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
)

func TestFailureToDialRoundTheMeshSaysWhyItWentThere(t *testing.T) {
	t.Parallel()
	other := errors.New("the server's certificate is not valid")
	tests := []struct {
		name    string
		err     error
		want    string
		timeout bool
	}{
		{
			name: "a name that does not resolve",
			err:  &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "paymint.shop", IsNotFound: true}},
			want: `mesh: target "paymint.shop:443": called directly (https is end-to-end and cannot be meshed: ` +
				`use an http URL and let the mesh do TLS): dial tcp: lookup paymint.shop: no such host`,
		},
		{
			name: "an address that does not answer in time",
			err:  &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded},
			want: `mesh: target "paymint.shop:443": called directly (https is end-to-end and cannot be meshed: ` +
				`use an http URL and let the mesh do TLS): dial tcp: i/o timeout`,
			timeout: true,
		},
		{name: "anything else is left as it is", err: other, want: other.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			around := roundTripper(func(*http.Request) (*http.Response, error) { return nil, tt.err })
			req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "https://paymint.shop/", http.NoBody)
			resp, err := NewTransport(nil, around).RoundTrip(req)
			if err == nil {
				t.Fatal(resp.Status, resp.Body.Close())
			}
			if err.Error() != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("error %q, want %q", err, tt.want)
			}
			timeout, ok := err.(interface{ Timeout() bool }) // as http.Client looks for it
			if got := ok && timeout.Timeout(); got != tt.timeout {
				t.Errorf("timeout %v, want %v", got, tt.timeout)
			}
		})
	}
}
