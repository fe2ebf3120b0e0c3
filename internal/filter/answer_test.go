package filter_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/internal/filter"
)

func TestBF5_HTTPStatusAsGRPCStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]codes.Code{
		200: codes.Unknown, 400: codes.Internal, 401: codes.Unauthenticated, 403: codes.PermissionDenied,
		404: codes.Unimplemented, 429: codes.Unavailable, 500: codes.Unknown, 502: codes.Unavailable,
		503: codes.Unavailable, 504: codes.Unavailable,
	} {
		if got := (&filter.Answer{Status: status}).GRPCCode(); got != want {
			t.Errorf("%d is %v, want %v", status, got, want)
		}
	}
	if got := (&filter.Answer{Status: 404, IsGRPC: true, Code: uint32(codes.DataLoss)}).GRPCCode(); got != codes.DataLoss {
		t.Errorf("a gRPC status became %v", got)
	}
}
