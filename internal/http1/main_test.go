package http1_test

import (
	"log/slog"
	"os"
	"testing"
)

// TestMain silences net/http, which logs what a server sends unasked.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) //nolint:forbidigo // package log goes there, too, which net/http uses
	os.Exit(m.Run())
}
