package inbound

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/internal/memnet"
)

// TestBD3_TheServerReadsNoGoAwayBeforeTheAnswer: streams that are on their way are its own,
// however long they take.
func TestBD3_TheServerReadsNoGoAwayBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := memnet.Pipe()
		defer near.Close()
		defer far.Close()
		c := partingOf(near)
		if _, err := c.Write(written(t)); err != nil {
			t.Fatal(err)
		}
		peer, server := http2.NewFramer(far, far), http2.NewFramer(io.Discard, c)
		read := make(chan http2.FrameType, 10)
		go func() { // ends with the connection
			defer close(read)
			for {
				frame, err := server.ReadFrame()
				if err != nil {
					return
				}
				read <- frame.Header().Type
			}
		}()
		stream := uint32(1)
		begin := func() {
			if err := peer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x82}, EndHeaders: true, EndStream: true}); err != nil {
				t.Fatal(err)
			}
			stream += 2
		}
		c.leave(0)
		begin() // it has not read the GOAWAY
		time.Sleep(partingPause + time.Second)
		begin() // nor now
		var ping *http2.PingFrame
		for ping == nil {
			frame, err := peer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			ping, _ = frame.(*http2.PingFrame)
		}
		begin()
		synctest.Wait()
		if err := peer.WritePing(true, ping.Data); err != nil {
			t.Fatal(err)
		}
		_ = far.Close()
		var got []http2.FrameType
		for kind := range read {
			got = append(got, kind)
		}
		want := []http2.FrameType{http2.FrameHeaders, http2.FrameHeaders, http2.FrameHeaders, http2.FramePing, http2.FrameGoAway}
		if len(got) != len(want) {
			t.Fatalf("the server reads %v", got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("the server reads %v", got)
			}
		}
	})
}

// TestBD3_AnAnswerThatNobodyAskedForEndsNothing: a peer has its connection until it is asked
// to go.
func TestBD3_AnAnswerThatNobodyAskedForEndsNothing(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	c := &partingConn{}
	c.ping = 0x0102030405060708
	var answer [8]byte
	binary.BigEndian.PutUint64(answer[:], c.ping)
	if err := http2.NewFramer(&said, nil).WritePing(true, answer); err != nil {
		t.Fatal(err)
	}
	c.Conn = &sink{Buffer: said}
	server := http2.NewFramer(io.Discard, c)
	if frame, err := server.ReadFrame(); err != nil || frame.Header().Type != http2.FramePing {
		t.Fatalf("got %v, %v", frame, err)
	}
	if frame, err := server.ReadFrame(); err == nil {
		t.Errorf("the server reads %v", frame)
	}
}
