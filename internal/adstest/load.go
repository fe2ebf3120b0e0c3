package adstest

import (
	"sync"
	"time"

	loadstatsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
)

// LoadStream is a stream of load reports that a client opened (LRS).
type LoadStream struct {
	server  *Server
	grpc    loadstatsv3.LoadReportingService_StreamLoadStatsServer
	reports *queue[*LoadRequest]
	once    sync.Once
	end     chan error
}

// LoadRequest is a report with the time of its arrival.
type LoadRequest struct {
	*loadstatsv3.LoadStatsRequest
	At time.Time
}

// AcceptLoad waits for the next stream of load reports.
func (s *Server) AcceptLoad() *LoadStream {
	s.tb.Helper()
	stream, ok := s.loads.next(s.config.Patience)
	if !ok {
		s.tb.Fatalf("no stream of load reports was opened within %v", s.config.Patience)
	}
	return stream
}

// ExpectNoLoad fails the test if a client opens a stream of load reports within d.
func (s *Server) ExpectNoLoad(d time.Duration) {
	s.tb.Helper()
	if _, ok := s.loads.next(d); ok {
		s.tb.Fatalf("a stream of load reports was opened within %v", d)
	}
}

// Recv waits for the next report.
func (s *LoadStream) Recv() *LoadRequest {
	s.server.tb.Helper()
	request, ok := s.reports.next(s.server.config.Patience)
	if !ok {
		s.server.tb.Fatalf("no load report came within %v", s.server.config.Patience)
	}
	return request
}

// Send asks for reports.
func (s *LoadStream) Send(response *loadstatsv3.LoadStatsResponse) {
	s.server.tb.Helper()
	if err := s.grpc.Send(response); err != nil {
		s.server.tb.Logf("send: %v", err)
	}
}

// End ends the stream with a status error, or with OK for nil.
func (s *LoadStream) End(err error) { s.once.Do(func() { s.end <- err }) }

// loadHandler is the gRPC service of load reports.
type loadHandler struct {
	loadstatsv3.UnimplementedLoadReportingServiceServer
	server *Server
}

func (h loadHandler) StreamLoadStats(ss loadstatsv3.LoadReportingService_StreamLoadStatsServer) error {
	stream := &LoadStream{server: h.server, grpc: ss, reports: newQueue[*LoadRequest](), end: make(chan error, 1)}
	h.server.loads.put(stream)
	go func() {
		// Ends with the stream: Recv fails as soon as StreamLoadStats has returned.
		for {
			m, err := ss.Recv()
			if err != nil {
				stream.End(nil)
				return
			}
			stream.reports.put(&LoadRequest{LoadStatsRequest: m, At: time.Now()})
		}
	}()
	select {
	case err := <-stream.end:
		return err
	case <-ss.Context().Done():
		return nil
	}
}
