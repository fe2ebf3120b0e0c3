// Package adstest is an xDS server for tests that does only what the test
// says: every response is scripted, every request is recorded with its time.
//
// It speaks the state-of-the-world and the delta variant of ADS over a network
// in memory, so it works in a testing/synctest bubble:
//
//	server := adstest.Start(t, adstest.Config{})
//	// give server.Dial to the client under test, then
//	stream := server.Accept()
//	request := stream.Recv()
//	stream.Send(adstest.Response(request.TypeURL, "v1", "n1", cluster))
//	ack := stream.Recv()
//
// To hold or to delay an answer, send it later; to resend one, send it again;
// to lie about a version or a nonce, write it into the response. [Stream.End]
// cuts one stream, [Server.Stop] is the death of the process, [Server.Freeze]
// is a peer that vanishes without a word.
//
// [Plane] is a control plane on top that answers by itself.
package adstest
