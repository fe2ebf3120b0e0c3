package inbound

import (
	"errors"
	"io"
	"net"
	"testing"
)

// A peer whose handshake is refused reads why only if the connection can be
// half-closed, and so do applications that upgrade one.
func TestAnAcceptedConnectionCanBeHalfClosed(t *testing.T) {
	t.Parallel()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	var conn net.Conn = &trackedConn{Conn: accepted}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("it cannot")
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(peer); err != nil || len(rest) > 0 {
		t.Errorf("the peer read %q, %v", rest, err)
	}
	if _, err := peer.Write([]byte("go on")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("go on"))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "go on" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := (&trackedConn{Conn: noHalves{}}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

type noHalves struct{ net.Conn }
