package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/inboardmesh/inboard/health"
)

// checkGRPC calls grpc.health.v1.Health/Check. The two messages have one field
// each, so that the call is made with net/http: this package serves HTTP and gRPC
// and knows the library of neither.
func (p *probe) checkGRPC(ctx context.Context, d *dialed) (f found, again bool) {
	g := p.config.GRPC
	host := firstOf(p.hostname, g.Authority, p.endpoint.cluster.name)
	req := p.request(ctx, "POST", "/grpc.health.v1.Health/Check", host, healthRequest(g.Service))
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", checkUserAgent)
	for _, header := range g.Set {
		req.Header.Add(header.Name, header.Value)
	}
	resp, err := d.cc.RoundTrip(req)
	if err != nil {
		return unreachable(err), ctx.Err() == nil && isStale(err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCheckedBody))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return unreachable(err), false
	}
	p.conn = d
	f.excluded = resp.Header[FailHeader] != nil
	if f.err = servingErr(resp.StatusCode, resp.Header.Get, resp.Trailer.Get, body); f.err != nil {
		f.result = health.Failure
	} else if resp.Header[degradedHeader] != nil {
		f.result = health.Degraded
	}
	return f, false
}

// servingErr is why the answer does not say that the service is served.
func servingErr(status int, header, trailer func(string) string, body []byte) error {
	switch {
	case status != 200:
		return fmt.Errorf("status %d", status)
	case !strings.HasPrefix(header("Content-Type"), "application/grpc"):
		return fmt.Errorf("content-type %q", header("Content-Type"))
	}
	code := firstOf(trailer("Grpc-Status"), header("Grpc-Status"))
	if code != "0" {
		return fmt.Errorf("grpc-status %q: %s", code, firstOf(trailer("Grpc-Message"), header("Grpc-Message")))
	}
	const serving = 1
	switch state, err := healthReply(body); {
	case err != nil:
		return err
	case state != serving:
		return fmt.Errorf("serving status %d", state)
	}
	return nil
}

const (
	frameHead = 5 // of a gRPC message: whether it is compressed, and its length

	stringField = 1<<3 | 2 // field 1 of protobuf, with a length
	enumField   = 1 << 3   // field 1 of protobuf, a varint
)

// healthRequest is a HealthCheckRequest in a frame.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = append(message, stringField)
		message = binary.AppendUvarint(message, uint64(len(service)))
		message = append(message, service...)
	}
	frame := make([]byte, frameHead, frameHead+len(message))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(message)))
	return append(frame, message...)
}

var errHealthReply = errors.New("the answer is no HealthCheckResponse")

// healthReply is the status of a HealthCheckResponse in a frame. Fields of later
// versions are passed over.
func healthReply(frame []byte) (status uint64, err error) {
	if len(frame) < frameHead || frame[0] != 0 || uint64(binary.BigEndian.Uint32(frame[1:])) != uint64(len(frame)-frameHead) {
		return 0, errHealthReply
	}
	for message := frame[frameHead:]; len(message) > 0; {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return 0, errHealthReply
		}
		message = message[n:]
		value, size := uint64(0), 0
		switch tag & 7 {
		case 0: // a varint
			value, size = binary.Uvarint(message)
		case 1: // 64 bits
			size = 8
		case 2: // with a length
			length, n := binary.Uvarint(message)
			if n <= 0 || length > uint64(len(message)-n) {
				return 0, errHealthReply
			}
			size = n + int(length)
		case 5: // 32 bits
			size = 4
		}
		if size <= 0 || size > len(message) {
			return 0, errHealthReply
		}
		if tag == enumField {
			status = value
		}
		message = message[size:]
	}
	return status, nil
}
