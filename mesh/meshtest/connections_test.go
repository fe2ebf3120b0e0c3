package meshtest

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheWaitForConnectionsIsBounded(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  http.ConnState // what becomes of the second connection after a second
		left int
		took time.Duration
	}{
		{"one is closed", http.StateClosed, 0, time.Second},
		{"one is hijacked", http.StateHijacked, 0, time.Second},
		{"one goes on", http.StateIdle, 1, closeTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var c connections
				if left := c.wait(); left != 0 {
					t.Errorf("%d are left before the first", left)
				}
				c.changed(nil, http.StateNew)
				c.changed(nil, http.StateNew)
				c.changed(nil, http.StateActive)
				c.changed(nil, http.StateClosed)
				time.AfterFunc(time.Second, func() { c.changed(nil, tt.end) })
				start := time.Now()
				if left, took := c.wait(), time.Since(start); left != tt.left || took != tt.took {
					t.Errorf("%d are left after %v, want %d after %v", left, took, tt.left, tt.took)
				}
			})
		})
	}
}
