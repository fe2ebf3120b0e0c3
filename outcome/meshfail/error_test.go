package meshfail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/outcome"
)

func TestErrorReadsFromTheOutsideIn(t *testing.T) {
	t.Parallel()
	cause := errors.New("connection refused")
	tests := []struct {
		name string
		err  Error
		want string
	}{
		{
			name: "everything is known",
			err: Error{
				Target: "payment.shop:80", Route: "top", Cluster: "v1", Endpoint: "10.0.0.7:8080",
				Attempts: 3, Err: cause,
			},
			want: `mesh: target "payment.shop:80": route "top": cluster "v1": 3 attempts: endpoint 10.0.0.7:8080: connection refused`,
		},
		{
			name: "one attempt is not counted aloud",
			err:  Error{Target: "payment.shop:80", Cluster: "v1", Attempts: 1, Endpoint: "10.0.0.7:8080", Err: cause},
			want: `mesh: target "payment.shop:80": cluster "v1": endpoint 10.0.0.7:8080: connection refused`,
		},
		{
			name: "the call did not get past its target",
			err:  Error{Target: "payment.shop:80", Err: errors.New("no configuration yet")},
			want: `mesh: target "payment.shop:80": no configuration yet`,
		},
		{
			name: "names are quoted",
			err:  Error{Target: "a\nb", Route: `"`, Err: cause},
			want: `mesh: target "a\nb": route "\"": connection refused`,
		},
		{
			name: "only the cause is known",
			err:  Error{Err: cause},
			want: "mesh: connection refused",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestErrorIsFoundInAChainAndLeadsToItsCause(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	err := fmt.Errorf("charge: %w", &Error{Kind: outcome.ConnectFailure, Err: fmt.Errorf("connect: %w", refused)})
	found, ok := errors.AsType[*Error](err)
	if !ok || found.Kind != outcome.ConnectFailure {
		t.Errorf("errors.AsType found %v, %t", found, ok)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("the cause is not in the chain")
	}
	if op, ok := errors.AsType[*net.OpError](err); !ok || op != refused {
		t.Errorf("errors.AsType[*net.OpError] = %v, %t", op, ok)
	}
}

func TestErrorByKind(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind     outcome.Kind
		timeout  bool
		is       error // nil: none of the sentinels
		grpcCode codes.Code
	}{
		{kind: outcome.ConnectFailure, grpcCode: codes.Unavailable},
		{kind: outcome.RefusedStream, grpcCode: codes.Unavailable},
		{kind: outcome.ResetBeforeRequest, grpcCode: codes.Unavailable},
		{kind: outcome.Reset, grpcCode: codes.Unavailable},
		{kind: outcome.PerTryTimeout, timeout: true, is: context.DeadlineExceeded, grpcCode: codes.DeadlineExceeded},
		{kind: outcome.Timeout, timeout: true, is: context.DeadlineExceeded, grpcCode: codes.DeadlineExceeded},
		{kind: outcome.Canceled, is: context.Canceled, grpcCode: codes.Canceled},
		{kind: outcome.Overflow, grpcCode: codes.Unavailable},
		{kind: outcome.NoEndpoint, grpcCode: codes.Unavailable},
		{kind: outcome.BodyFailure, grpcCode: codes.Internal},
		{kind: outcome.NoRoute, grpcCode: codes.Unavailable},
		{kind: outcome.UnknownHost, grpcCode: codes.Unavailable},
		{kind: outcome.NoConfig, grpcCode: codes.Unavailable},
		{kind: outcome.Closed, is: net.ErrClosed, grpcCode: codes.Canceled},
	}
	sentinels := []error{context.DeadlineExceeded, context.Canceled, net.ErrClosed}
	for _, tt := range tests {
		t.Run(tt.kind.String(), func(t *testing.T) {
			t.Parallel()
			err := &Error{Kind: tt.kind, Target: "payment.shop:80", Err: errors.New("cause")}
			if got := err.Timeout(); got != tt.timeout {
				t.Errorf("Timeout() = %t, want %t", got, tt.timeout)
			}
			for _, sentinel := range sentinels {
				if got, want := errors.Is(err, sentinel), sentinel == tt.is; got != want {
					t.Errorf("errors.Is(%v) = %t, want %t", sentinel, got, want)
				}
			}
			got := err.GRPCStatus()
			if got.Code() != tt.grpcCode || got.Message() != err.Error() {
				t.Errorf("GRPCStatus() = %v %q, want %v", got.Code(), got.Message(), tt.grpcCode)
			}
			if code := status.Code(fmt.Errorf("call: %w", err)); code != tt.grpcCode {
				t.Errorf("status.Code() of a wrapped error = %v, want %v", code, tt.grpcCode)
			}
		})
	}
}

func TestADeadlineThatEndsTheWaitForAConfigurationIsADeadline(t *testing.T) {
	t.Parallel()
	err := &Error{Kind: outcome.NoConfig, Err: fmt.Errorf("no configuration: %w", context.DeadlineExceeded)}
	if code := status.Code(err); code != codes.DeadlineExceeded || !err.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("code %v, timeout %t", code, err.Timeout())
	}
}

func TestSafeToRetryOnlyIfNothingWasSent(t *testing.T) {
	t.Parallel()
	if err := (&Error{Err: io.EOF}); !err.SafeToRetry() {
		t.Error("nothing was sent, but it is not safe to retry")
	}
	if err := (&Error{Sent: true, Err: io.EOF}); err.SafeToRetry() {
		t.Error("something was sent, but it is safe to retry")
	}
}

// Whatever the kind, a cause that is a timeout stays one for those who ask, such
// as url.Error, which is what http.Client returns.
func TestTimeoutOfTheCauseShowsThrough(t *testing.T) {
	t.Parallel()
	err := &Error{Kind: outcome.ConnectFailure, Err: fmt.Errorf("dial: %w", os.ErrDeadlineExceeded)}
	if !err.Timeout() {
		t.Errorf("Timeout() = false for %v", err)
	}
	if wrapped := (&url.Error{Op: "Get", URL: "http://payment", Err: err}); !wrapped.Timeout() {
		t.Errorf("Timeout() = false for %v", wrapped)
	}
	if (&Error{Kind: outcome.ConnectFailure, Err: io.EOF}).Timeout() {
		t.Error("Timeout() = true for a cause that is none")
	}
}
