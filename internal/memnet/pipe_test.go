package memnet_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/inboardmesh/inboard/internal/memnet"
)

func TestPipeBehavesLikeAConnection(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := memnet.Pipe()
		return a, b, func() { _, _ = a.Close(), b.Close() }, nil
	})
}

func TestBothEndsMayWriteAtTheSameTime(t *testing.T) {
	t.Parallel()
	a, b := memnet.Pipe()
	for _, end := range []net.Conn{a, b} {
		if _, err := end.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatWasWrittenIsReadAfterClose(t *testing.T) {
	t.Parallel()
	a, b := memnet.Pipe()
	if _, err := a.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	if got, err := io.ReadAll(b); err != nil || string(got) != "last words" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := b.Write([]byte("answer")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want a closed pipe", err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

func TestCloseWriteLeavesTheOtherDirectionOpen(t *testing.T) {
	t.Parallel()
	var n memnet.Network
	l, err := n.Listen("a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		conn, _ := l.Accept()
		accepted <- conn
	}()
	client, err := n.DialContext(t.Context(), "", "a")
	if err != nil {
		t.Fatal(err)
	}
	server := <-accepted
	if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
	if _, err := server.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestAWriteWaitsForRoomUntilItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		start := time.Now()
		written, err := a.Write(make([]byte, 1<<20))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second || written == 0 {
			t.Errorf("wrote %d, %v after %v", written, err, time.Since(start))
		}
		go func() { _, _ = io.Copy(io.Discard, b) }()
		_ = a.SetWriteDeadline(time.Time{})
		if _, err := io.Copy(a, bytes.NewReader(make([]byte, 1<<20))); err != nil {
			t.Error(err)
		}
		_ = a.Close()
	})
}
