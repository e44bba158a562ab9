//go:build linux

package real

import (
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const nginxConf = `daemon off; master_process on; worker_processes 1; error_log stderr; pid DIR/nginx.pid; user root;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server {
    listen 127.0.0.1:PLAIN; listen unix:DIR/nginx.sock;
    listen 127.0.0.1:GOOD ssl http2;
    ssl_certificate DIR/good.pem; ssl_certificate_key DIR/good.key;
    location / { default_type text/plain; return 200 "shop is open\n"; }
    location /broken { return 503; }
    location /moved { return 302 /; }
    location /loop { return 302 /loop; }
    location /echo { proxy_pass http://127.0.0.1:ECHO; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }
    location /stuck { proxy_pass http://127.0.0.1:ECHO; }
    location /slow { root DIR; limit_rate 1000; }
    location /gone { proxy_pass http://127.0.0.1:NOBODY; }
  }
  server {
    listen 127.0.0.1:GOOD ssl http2; server_name stuck.example;
    ssl_certificate DIR/good.pem; ssl_certificate_key DIR/good.key;
    location / { grpc_pass grpc://127.0.0.1:ECHO; }
  }
  server { listen 127.0.0.1:EXPIRED ssl; ssl_certificate DIR/expired.pem; ssl_certificate_key DIR/expired.key; }
  server { listen 127.0.0.1:OTHER ssl; ssl_certificate DIR/other.pem; ssl_certificate_key DIR/other.key; }
  server { listen 127.0.0.1:OLD ssl; ssl_protocols TLSv1.2; ssl_certificate DIR/good.pem; ssl_certificate_key DIR/good.key; }
}
`

func testNginx(t *testing.T, b *table) {
	path := program(t, "nginx-light", "nginx")
	ca, dir := probetest.NewCA(t), directory(t)
	certificate(t, ca, dir, "good", 30*24*time.Hour, "127.0.0.1")
	certificate(t, ca, dir, "expired", -time.Hour, "127.0.0.1")
	certificate(t, ca, dir, "other", time.Hour, "other.example")
	plain, good, expired, other, old, behind := port(t), port(t), port(t), port(t), port(t), port(t)
	conf := write(t, dir, "nginx.conf", nginxConf, "DIR", dir, "PLAIN", plain, "GOOD", good, "EXPIRED", expired, "OTHER", other, "OLD", old, "ECHO", behind, "NOBODY", port(t))
	backend := own(t, "websocket", dir, behind, port(t))
	write(t, dir, "slow", strings.Repeat("slow ", 20_000))
	s := start(t, nil, path, "-c", conf, "-p", dir, "-e", "stderr")
	s.ready(t, false, "127.0.0.1:"+plain, "127.0.0.1:"+good)

	trust := &meshv1.TlsConfig{CaPem: ca.PEM}
	h := func(p *meshv1.HttpProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Http = p } }
	l := func(p *meshv1.TlsProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Tls = p } }
	d := func(p *meshv1.TcpProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Tcp = p } }
	web, secure := "http://127.0.0.1:"+plain, "https://127.0.0.1:"+good
	request := "GET / HTTP/1.0\r\n\r\n"
	status := &meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Send: request, Expect: "^HTTP/1[.]1 200 "}}}
	unix := ordinary()
	tcpGone := "wrong: accepts, answers something else"
	connectOnly := outage{hanging: probetest.OK(), down: ordinary().down} // the kernel accepts
	before := func() {
		backend.freeze(t)
		stuck := probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "")
		b.run(t, "nginx", unhurried, []probed{
			{"http", "hanging in the middle of its answer", web + "/slow", nil, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "")},
			{"https, HTTP/2", "hanging in the middle of its answer", secure + "/slow", h(&meshv1.HttpProbe{Tls: trust}), probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "")},
			{"http", "hanging backend", web + "/stuck", nil, stuck},
			{"https", "hanging backend", secure + "/stuck", h(&meshv1.HttpProbe{Tls: trust, Version: meshv1.HttpProbe_HTTP1}), stuck},
			{"https, HTTP/2", "hanging backend", secure + "/stuck", h(&meshv1.HttpProbe{Tls: trust}), stuck},
			{"websocket", "hanging backend", "ws://127.0.0.1:" + plain + "/echo", nil, stuck},
			{"grpcs", "hanging backend", "grpcs://127.0.0.1:" + good, func(c *meshv1.Check) { c.Grpc = &meshv1.GrpcProbe{Tls: trust, Authority: "stuck.example"} }, stuck},
		})
	}
	b.life(t, "nginx", s, []subject{
		{"http", web, h(&meshv1.HttpProbe{Expect: []string{`response.status == 200 && response.body.contains("open")`}}), ordinary()},
		{"http steps", web, h(&meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Url: "/moved"}, {Url: "/"}}}), ordinary()},
		{"https", secure, h(&meshv1.HttpProbe{Tls: trust, Version: meshv1.HttpProbe_HTTP1}), handshaking()},
		{"https, HTTP/2", secure, h(&meshv1.HttpProbe{Tls: trust, Version: meshv1.HttpProbe_HTTP2}), handshaking()},
		{"tls", "tls://127.0.0.1:" + good, l(&meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, MinDaysLeft: 7}}), handshaking()},
		{"tcp, connect only", "tcp://127.0.0.1:" + plain, nil, connectOnly},
		{"tcp, dialogue", "tcp://127.0.0.1:" + plain, d(status), ordinary()},
		{"tcp, send and expect", "tcp://127.0.0.1:" + plain, d(&meshv1.TcpProbe{Send: request, Expect: []string{`response.body.contains("open")`}}), ordinary()},
		{"unix", "unix://" + dir + "/nginx.sock", d(status), unix},
		{"websocket", "ws://127.0.0.1:" + plain + "/echo", nil, ordinary()},
	}, []probed{
		{"http", "wrong: 503", web + "/broken", nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "503")},
		{"http", "wrong: 502 of a dead backend", web + "/gone", nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "502")},
		{"http", "wrong: another body", web, h(&meshv1.HttpProbe{Expect: []string{`response.body.contains("closed")`}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"http", "wrong: redirects without end", web + "/loop", nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "stopped after 10 redirects")},
		{"http steps", "wrong: second step 503", web, h(&meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Url: "/"}, {Url: "/broken"}}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "503")},
		{"http", "wrong: TLS there", "http://127.0.0.1:" + good, nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "400")},
		{"https", "wrong: no TLS there", "https://127.0.0.1:" + plain, h(&meshv1.HttpProbe{Tls: trust}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "")},
		{"https", "wrong: authority not trusted", secure, nil, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted")},
		{"https", "wrong: expired", "https://127.0.0.1:" + expired, h(&meshv1.HttpProbe{Tls: trust}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "expired on")},
		{"https", "wrong: another name", "https://127.0.0.1:" + other, h(&meshv1.HttpProbe{Tls: trust}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "other.example")},
		{"https, HTTP/2", "wrong: HTTP/1.1 only", "https://127.0.0.1:" + old, h(&meshv1.HttpProbe{Tls: trust, Version: meshv1.HttpProbe_HTTP2}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "no application protocol")},
		{"tls", "wrong: expired", "tls://127.0.0.1:" + expired, l(&meshv1.TlsProbe{Tls: trust}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "expired on")},
		{"tls", "wrong: too few days", "tls://127.0.0.1:" + good, l(&meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, MinDaysLeft: 60}}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "min_days_left is 60")},
		{"tls", "wrong: too old a version", "tls://127.0.0.1:" + old, l(&meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, MinVersion: "1.3"}}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "version")},
		{"tls", "wrong: no TLS there", "tls://127.0.0.1:" + plain, nil, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "")},
		{"tcp, dialogue", tcpGone, "tcp://127.0.0.1:" + plain, d(&meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Send: request, Expect: "^SSH-2", Reject: "^HTTP/"}}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"tcp, send and expect", tcpGone, "tcp://127.0.0.1:" + plain, d(&meshv1.TcpProbe{Send: request, Expect: []string{`response.body.contains("SSH")`}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"unix", tcpGone, "unix://" + dir + "/nginx.sock", d(&meshv1.TcpProbe{Send: request, Expect: []string{`response.body.contains("SSH")`}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"websocket", "wrong: a page", "ws://127.0.0.1:" + plain + "/", nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "200")},
		{"websocket", "wrong: 502 of a dead backend", "ws://127.0.0.1:" + plain + "/gone", nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "502")},
		{"grpc", "wrong: HTTP/1.1 there", "grpc://127.0.0.1:" + plain, nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "")},
		{"grpcs", "wrong: a page over HTTP/2", "grpcs://127.0.0.1:" + good, func(c *meshv1.Check) { c.Grpc = &meshv1.GrpcProbe{Tls: trust} }, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "")},
	}, before)
}
