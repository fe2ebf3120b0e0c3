package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// proxies are a pair, as two sidecars are: the client's takes plaintext and makes
// mutual TLS of it, the server's takes that and makes plaintext. A nil pair is
// none.
type proxies struct {
	addr string
	cmds []*exec.Cmd
}

func (w *world) startProxies(ctx context.Context, c *benchCase, server string) (*proxies, error) {
	first, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	second, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	p := &proxies{addr: first}
	for i, side := range []struct{ account, listen, to string }{{"customer", first, second}, {"payment", second, server}} {
		config, args := haproxyConfig, []string{"-f"}
		if c.proxy == "nginx" {
			config, args = nginxConfig, []string{"-p", w.dir, "-c"}
		}
		bindTLS, serverTLS := "", ""
		if i == 0 {
			serverTLS = "yes"
		} else {
			bindTLS = "yes"
		}
		h2 := c.client.isGRPC()
		file := w.path(fmt.Sprintf("%s-%d.conf", c.proxy, i))
		if err := os.WriteFile(file, []byte(config(w, side.account, side.listen, side.to, bindTLS != "", serverTLS != "", h2)), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, c.proxy, append(args, file)...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			p.stop()
			return nil, err
		}
		p.cmds = append(p.cmds, cmd)
	}
	for _, addr := range []string{first, second} {
		if err := reachable(ctx, addr); err != nil {
			p.stop()
			return nil, fmt.Errorf("%s: %w", c.proxy, err)
		}
	}
	return p, nil
}

func (p *proxies) stop() {
	for _, cmd := range p.cmds {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
}

// cpu is the CPU time of both.
func (p *proxies) cpu() (total time.Duration, err error) {
	if p == nil {
		return 0, nil
	}
	for _, cmd := range p.cmds {
		used, err := cpuOf(cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

func freePort(ctx context.Context) (string, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func reachable(ctx context.Context, addr string) error {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// haproxyConfig is one thread in one process, the connections to the server kept
// and shared.
func haproxyConfig(w *world, account, listen, to string, bindTLS, serverTLS, h2 bool) string {
	bind, server := "", ""
	if bindTLS {
		bind = fmt.Sprintf(" ssl crt %s ca-file %s verify required alpn %s", w.path(account+".both.pem"), w.path("root.pem"), alpn(h2))
	} else if h2 {
		bind = " proto h2"
	}
	if serverTLS {
		server = fmt.Sprintf(" ssl crt %s ca-file %s verify required verifyhost payment sni str(payment) alpn %s",
			w.path(account+".both.pem"), w.path("root.pem"), alpn(h2))
	}
	if h2 {
		server += " proto h2"
	}
	return fmt.Sprintf(`global
  nbthread 1
  maxconn 4096
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind %s%s
  default_backend out
backend out
  server payment %s%s
`, listen, bind, to, server)
}

func alpn(h2 bool) string {
	if h2 {
		return "h2"
	}
	return "http/1.1"
}

// nginxConfig is one worker. Between the two it speaks HTTP/1.1, and HTTP/2 for gRPC, of
// which it carries one call at a time on a connection to a server.
func nginxConfig(w *world, account, listen, to string, bindTLS, serverTLS, h2 bool) string {
	bind, scheme, tls, pass := "", "http", "", "proxy"
	if h2 {
		scheme, pass = "grpc", "grpc"
		bind = " http2"
	}
	if bindTLS {
		bind = " ssl" + bind
		tls = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s; ssl_client_certificate %s; ssl_verify_client on;\n",
			w.path(account+".pem"), w.path(account+".key"), w.path("root.pem"))
	}
	if serverTLS {
		scheme += "s"
		tls = fmt.Sprintf("PASS_ssl_certificate %s; PASS_ssl_certificate_key %s; PASS_ssl_trusted_certificate %s; PASS_ssl_verify on; PASS_ssl_name payment; PASS_ssl_server_name on;\n",
			w.path(account+".pem"), w.path(account+".key"), w.path("root.pem"))
	}
	location := fmt.Sprintf(`proxy_pass %s://out; proxy_http_version 1.1; proxy_set_header Connection "";`, scheme)
	if h2 {
		location = fmt.Sprintf("grpc_pass %s://out;", scheme)
	}
	return strings.ReplaceAll(fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %s; error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;
  keepalive_requests 1000000000; http2_max_concurrent_streams 1000;
  upstream out { server %s; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen %s%s;
    %s
    location / { %s }
  }
}
`, w.path(account+".nginx.pid"), w.path("b"), w.path("p"), w.path("f"), w.path("u"), w.path("s"), to, listen, bind, tls, location), "PASS", pass)
}
