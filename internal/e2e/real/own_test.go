//go:build linux

package real

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Variables that make this program a server: its role, and where it listens plainly and over TLS.
const (
	roleVariable   = "PROBEMESH_REAL_ROLE"
	plainVariable  = "PROBEMESH_REAL_PLAIN"
	secureVariable = "PROBEMESH_REAL_SECURE"
	pairVariable   = "PROBEMESH_REAL_PAIR"
)

// own starts a server of this program. dir has good.pem and good.key.
func own(t *testing.T, role, dir, plain, secure string) *server {
	t.Helper()
	s := start(t, func(c *exec.Cmd) {
		c.Env = append(os.Environ(), roleVariable+"="+role, plainVariable+"=127.0.0.1:"+plain, secureVariable+"=127.0.0.1:"+secure, pairVariable+"="+dir+"/good")
	}, os.Args[0])
	s.ready(t, false, "127.0.0.1:"+plain, "127.0.0.1:"+secure)
	return s
}

// serveRole is the main of these servers.
func serveRole(role string) error {
	pair, err := tls.LoadX509KeyPair(os.Getenv(pairVariable)+".pem", os.Getenv(pairVariable)+".key")
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", os.Getenv(plainVariable))
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", os.Getenv(secureVariable))
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	done := make(chan error, 2)
	switch role {
	case "grpc":
		serve := func(l net.Listener, o ...grpc.ServerOption) {
			s := grpc.NewServer(o...)
			h := health.NewServer()
			h.SetServingStatus("shop.Broken", healthv1.HealthCheckResponse_NOT_SERVING)
			healthv1.RegisterHealthServer(s, h)
			reflection.Register(s)
			done <- s.Serve(l)
		}
		go serve(plain)
		go serve(secure, grpc.Creds(credentials.NewTLS(config)))
	case "websocket":
		s := &http.Server{Handler: http.HandlerFunc(echo), ReadHeaderTimeout: time.Minute}
		go func() { done <- s.Serve(plain) }()
		go func() { done <- s.Serve(tls.NewListener(secure, config)) }()
	case "http3":
		h := http3.Server{Addr: os.Getenv(secureVariable), TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				http.NotFound(w, r)
				return
			}
			_, _ = io.WriteString(w, "shop is open")
		})}
		go func() { done <- h.ListenAndServe() }() // the two listeners say that it is here
	default:
		return errors.New("there is no role " + role)
	}
	return <-done
}

// echo sends back every message, closes with 4000 for "bye", and says nothing to "hush".
func echo(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/echo" {
		http.NotFound(w, r)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow() //nolint:errcheck // the end
	for {
		kind, data, err := c.Read(context.Background())
		if err != nil {
			return
		}
		switch string(data) {
		case "bye":
			_ = c.Close(4000, "bye")
			return
		case "hush":
			continue
		}
		if err := c.Write(context.Background(), kind, data); err != nil {
			return
		}
	}
}

func testGRPC(t *testing.T, b *table) {
	ca, dir, plain, secure := probetest.NewCA(t), directory(t), port(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	s := own(t, "grpc", dir, plain, secure)
	at, over := "grpc://127.0.0.1:"+plain, "grpcs://127.0.0.1:"+secure
	g := func(p *meshv1.GrpcProbe) func(*meshv1.Check) {
		return func(c *meshv1.Check) { c.Grpc = p }
	}
	trust := &meshv1.TlsConfig{CaPem: ca.PEM}
	call := &meshv1.GrpcCall{Method: "grpc.health.v1.Health/Check", Request: `{"service": ""}`}
	b.life(t, "grpc-go", s, []subject{
		{"grpc", at, nil, ordinary()},
		{"grpc by reflection", at, g(&meshv1.GrpcProbe{Call: call, Expect: []string{`response.json.status == "SERVING"`}}), ordinary()},
		{"grpc watch", at, g(&meshv1.GrpcProbe{Watch: true}), ordinary()},
		{"grpcs", over, g(&meshv1.GrpcProbe{Tls: trust}), handshaking()},
	}, []probed{
		{"grpc", "wrong: NOT_SERVING", at + "/shop.Broken", nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "NOT_SERVING")},
		{"grpc", "wrong: no such service", at + "/shop.Missing", nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "NOT_FOUND")},
		{"grpc by reflection", "wrong: another value", at, g(&meshv1.GrpcProbe{Call: call, Expect: []string{`response.json.status == "NOT_SERVING"`}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"grpc by reflection", "wrong: no such method", at, g(&meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "shop.v1.Cart/Get"}}), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "")},
		{"grpcs", "wrong: authority not trusted", over, nil, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted")},
		{"grpc", "wrong: TLS there", "grpc://127.0.0.1:" + secure, nil, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "")},
		{"grpcs", "wrong: no TLS there", "grpcs://127.0.0.1:" + plain, g(&meshv1.GrpcProbe{Tls: trust}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "")},
		{"websocket", "wrong: gRPC there", "ws://127.0.0.1:" + plain + "/echo", nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "malformed HTTP response")},
		{"http", "wrong: gRPC there", "http://127.0.0.1:" + plain, nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "malformed HTTP response")},
	})
}

func testWebsocket(t *testing.T, b *table) {
	ca, dir, plain, secure := probetest.NewCA(t), directory(t), port(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	s := own(t, "websocket", dir, plain, secure)
	at, over := "ws://127.0.0.1:"+plain, "wss://127.0.0.1:"+secure
	w := func(p *meshv1.WebsocketProbe) func(*meshv1.Check) {
		return func(c *meshv1.Check) { c.Websocket = p }
	}
	trust := &meshv1.TlsConfig{CaPem: ca.PEM}
	hello := []*meshv1.WebsocketStep{{Name: "greet", Send: "hello", Expect: "^hello$"}}
	b.life(t, "coder/websocket", s, []subject{
		{"websocket", at + "/echo", nil, ordinary()},
		{"websocket", at + "/echo", w(&meshv1.WebsocketProbe{Steps: append(hello, &meshv1.WebsocketStep{Ping: true}, &meshv1.WebsocketStep{Close: true})}), ordinary()},
		{"websocket over TLS", over + "/echo", w(&meshv1.WebsocketProbe{Tls: trust, Steps: hello}), handshaking()},
	}, []probed{
		{"websocket", "wrong: 404", at + "/none", nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "404")},
		{"websocket", "wrong: another message", at + "/echo", w(&meshv1.WebsocketProbe{Steps: []*meshv1.WebsocketStep{{Send: "hello", Expect: "^welcome", Reject: "^hello"}}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"websocket", "wrong: closes", at + "/echo", w(&meshv1.WebsocketProbe{Steps: []*meshv1.WebsocketStep{{Send: "bye", Expect: "^bye"}}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "4000")},
		{"websocket over TLS", "wrong: authority not trusted", over + "/echo", nil, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted")},
		{"websocket", "wrong: TLS there", "ws://127.0.0.1:" + secure + "/echo", nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "")},
		{"websocket over TLS", "wrong: no TLS there", "wss://127.0.0.1:" + plain + "/echo", w(&meshv1.WebsocketProbe{Tls: trust}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "")},
		{"grpc", "wrong: HTTP/1.1 there", fmt.Sprintf("grpc://127.0.0.1:%s", plain), nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "")},
	})
}

func testHTTP3(t *testing.T, b *table) {
	ca, dir, secure := probetest.NewCA(t), directory(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	s := own(t, "http3", dir, port(t), secure)
	uri := "https://127.0.0.1:" + secure
	h := func(p *meshv1.HttpProbe) func(*meshv1.Check) {
		return func(c *meshv1.Check) {
			p.Version = meshv1.HttpProbe_HTTP3
			c.Http = p
		}
	}
	up := h(&meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Expect: []string{`response.body == "shop is open"`}})
	s.await(t, "an answer over QUIC", func() bool {
		return probed{uri: uri, check: up}.probe(t, time.Second).Outcome == meshv1.Result_OK
	})
	o := outage{hanging: probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_CONNECT, ""), down: probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "refused")}
	b.life(t, "quic-go", s, []subject{{"https, HTTP/3", uri, up, o}}, []probed{
		{"https, HTTP/3", "wrong: 404", uri + "/none", h(&meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "404")},
		{"https, HTTP/3", "wrong: authority not trusted", uri, h(&meshv1.HttpProbe{}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted")},
		{"https, HTTP/3", "wrong: another name", uri, h(&meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ServerName: "other.example"}}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "other.example")},
	})
}
