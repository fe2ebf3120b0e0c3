// Package faultproxy is a bad network by hand: a proxy for TCP connections that
// delays, throttles, slices, swallows, resets and refuses what passes, as it is
// told, while it runs. It needs no kernel support, knows no protocol above TCP,
// and works over a network in memory, inside a testing/synctest bubble, as well
// as over loopback.
//
// A proxy stands between one client and one server:
//
//	proxy, err := faultproxy.Start(faultproxy.Config{
//		Listen: func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
//		Dial:   func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", server) },
//	})
//	defer proxy.Close()
//	proxy.Set(faultproxy.Faults{}, faultproxy.Faults{Latency: 50 * time.Millisecond})
//
// A new proxy passes everything on.
package faultproxy
