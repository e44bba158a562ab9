package http_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// serve3 serves HTTP/3 until the test ends and gives its URL.
func serve3(t *testing.T, ca *probetest.CA, h nethttp.HandlerFunc) string {
	t.Helper()
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1", "localhost")
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}), QUICConfig: &quic.Config{MaxIdleTimeout: 30 * time.Second}}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(socket) }()
	t.Cleanup(func() { s.Close(); socket.Close(); <-done })
	return "https://" + socket.LocalAddr().String()
}

func options3(ca *probetest.CA, change func(*meshv1.HttpProbe)) *meshv1.HttpProbe {
	o := &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP3, Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}
	if change != nil {
		change(o)
	}
	return o
}

func TestHTTP3IsSpoken(t *testing.T) {
	ca := probetest.NewCA(t)
	u := serve3(t, ca, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/redirect" {
			nethttp.Redirect(w, r, "/end", nethttp.StatusPermanentRedirect)
			return
		}
		if r.URL.Path == "/down" {
			nethttp.Redirect(w, r, "http://"+r.Host+"/", nethttp.StatusFound)
			return
		}
		fmt.Fprint(w, r.Proto, r.Method, string(b), r.URL.Path)
	})
	r := run(t, u+"/redirect", options3(ca, func(o *meshv1.HttpProbe) {
		o.Body, o.AcceptedVersions = "x", []string{"3"}
		o.Expect = []string{`response.body == "HTTP/3.0POSTx/end"`, `response.version == "3"`, `response.tls.version == "1.3"`, `response.redirects == 1`}
	}))
	probetest.OK().Match(t, r)
	if tm := r.Timings; tm.Connect.AsDuration() <= 0 || tm.Handshake.AsDuration() <= 0 || tm.Processing.AsDuration() <= 0 || tm.Transfer == nil || r.Tls.GetChainExpiry() == nil || r.RemoteAddress == "" {
		t.Errorf("got %v", r)
	}
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "HTTP/3 needs https").Match(t, run(t, u+"/down", options3(ca, nil)))
	probetest.OK().Match(t, run(t, strings.Replace(u, "127.0.0.1", "localhost", 1), options3(ca, func(o *meshv1.HttpProbe) { o.IpFamily = meshv1.IpFamily_IPV4 })))
	probetest.OK().Match(t, run(t, "https://localhost/", options3(ca, func(o *meshv1.HttpProbe) { o.ResolveTo = strings.TrimPrefix(u, "https://") })))
	r = run(t, u, options3(ca, func(o *meshv1.HttpProbe) { o.Tls = nil }))
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted (CN=Test CA)").Match(t, r)
	if len(r.Evidence.Certificates) != 1 {
		t.Errorf("certificates %v", r.Evidence.Certificates)
	}
}

func TestHTTP3ThatIsNotThereIsClassified(t *testing.T) {
	ca := probetest.NewCA(t)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	silent := "https://" + socket.LocalAddr().String()
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_CONNECT, "timed out after 500ms").Match(t, within(t, 500*time.Millisecond, silent, options3(ca, nil)))
	socket.Close()
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connection refused").Match(t, run(t, silent, options3(ca, nil)))
}

func TestHostileHTTP3EndsInAFailure(t *testing.T) {
	ca := probetest.NewCA(t)
	u := serve3(t, ca, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/headers":
			for i := range 3000 {
				w.Header().Set(fmt.Sprintf("x-%d", i), strings.Repeat("y", 100))
			}
		case "/informational":
			for range 1000 {
				w.WriteHeader(103)
			}
		case "/body":
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case "/slow":
			w.WriteHeader(200)
			w.(nethttp.Flusher).Flush()
			<-r.Context().Done()
		case "/abort":
			w.WriteHeader(200)
			w.(nethttp.Flusher).Flush()
			panic(nethttp.ErrAbortHandler)
		}
	})
	for path, want := range map[string]probetest.Want{
		"/silent":        probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out"),
		"/headers":       probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "headers are longer than 64 KiB"),
		"/informational": probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "1xx"),
		"/body":          probetest.OK(),
		"/slow":          probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "timed out"),
		"/abort":         probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, ""),
	} {
		t.Run(path, func(t *testing.T) {
			timeout := 10 * time.Second
			if want.Class == meshv1.Result_TIMEOUT {
				timeout = time.Second
			}
			r := within(t, timeout, u+path, options3(ca, nil))
			if path == "/abort" { // the reset may overtake the headers
				want.Phase = r.FailedPhase
			}
			want.Match(t, r)
		})
	}
}
