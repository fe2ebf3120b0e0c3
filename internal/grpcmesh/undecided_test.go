package grpcmesh

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestACallAboutWhichAFilterCouldNotDecideIsNeverServed(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		err  error
		want codes.Code
	}{
		{"the call has ended", ended, context.Canceled, codes.Canceled},
		{"the mesh has ended", t.Context(), net.ErrClosed, codes.Unavailable},
		{"both have", ended, net.ErrClosed, codes.Unavailable},
		{"the time of the filter was over, and that of the call is not", t.Context(), context.DeadlineExceeded, codes.Unavailable},
		{"anything else", t.Context(), errors.New("no answer"), codes.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := undecided(tt.ctx, tt.err); status.Code(err) != tt.want {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}
