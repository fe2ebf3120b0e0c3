package xds

import (
	"errors"
	"fmt"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// What the server has said of a resource that was never there fails calls at once
// (gRFC A88); what may still come is waited for.
func TestX51_X66_OnlyAnAnswerMakesADestinationUnusable(t *testing.T) {
	t.Parallel()
	passing := func(k key) error {
		return &ads.Error{Type: k.url, Name: k.name, Err: fmt.Errorf("busy: %w", ads.ErrTransient)}
	}
	for _, tt := range []struct {
		name               string
		of                 func(key) error
		unusable, notFound bool
	}{
		{"the server is away", offline, false, false},
		{"the server has no answer now", passing, false, false},
		{"it is invalid", invalid, true, false},
		{"it does not exist", notFound, true, true},
	} {
		for _, missing := range []key{lds(destination), rds("r")} {
			t.Run(tt.name+": "+missing.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld()
				if missing == rds("r") {
					w.set(apiListener("r"))
				}
				w.fail(missing, tt.of(missing), true)
				published, stop := w.watchTarget()
				defer stop()
				w.pump()
				update := published.one(t)
				unknown := tt.notFound && missing == lds(destination)
				if update.Value != nil || errors.Is(update.Err, discovery.ErrNotFound) != unknown ||
					errors.Is(update.Err, discovery.ErrUnusable) != (tt.unusable && !unknown) {
					t.Errorf("published %+v: unknown %v, unusable %v", update,
						errors.Is(update.Err, discovery.ErrNotFound), errors.Is(update.Err, discovery.ErrUnusable))
				}
			})
		}
	}
}
