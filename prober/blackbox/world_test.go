package blackbox_test

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
)

// world are targets of every behaviour, on addresses of this machine.
type world struct {
	dir     string
	at      map[string]string // host:port by name of target
	ca      *certificate
	every   string // a port of every address of this machine with the pages
	closers []func()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), at: map[string]string{}}
	t.Cleanup(func() {
		for _, c := range w.closers {
			c()
		}
	})
	w.ca = w.issue(t, "ca", nil, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	w.issue(t, "client", w.ca, nil)
	w.serveHTTP(t)
	w.serveTLS(t)
	w.serveTCP(t)
	w.serveDNS(t)
	w.serveGRPC(t)
	return w
}

// path is a file of the world.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// listen serves connections one by one in goroutines of their own.
func (w *world) listen(t testing.TB, name string, serve func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.at[name] = l.Addr().String()
	var mu sync.Mutex
	open, closed := map[net.Conn]bool{}, false
	w.closers = append(w.closers, func() { // and what is connected: a client may wait for longer than the test lasts
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		closed = true
		for c := range open {
			c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			if closed {
				c.Close()
			}
			mu.Unlock()
			go func() {
				defer func() {
					c.Close()
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				}()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				serve(c)
			}()
		}
	}()
}

// certificate is a key pair and what signed it.
type certificate struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pair tls.Certificate
}

// issue makes a certificate, signed by itself when by is nil, and writes it to files.
func (w *world) issue(t testing.TB, name string, by *certificate, change func(*x509.Certificate)) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"probemesh, \"tests\""}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		DNSNames: []string{"localhost", "good.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	out := &certificate{key: key}
	if out.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	out.pair = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	w.write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
	return out
}

func (w *world) write(t testing.TB, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(w.path(name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) serveHTTP(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.at["http"] = l.Addr().String()
	server := &http.Server{Handler: w.pages()}
	w.closers = append(w.closers, func() { server.Close() })
	go func() { _ = server.Serve(l) }()
	if six, err := net.Listen("tcp", "[::1]:0"); err == nil {
		w.at["http6"] = six.Addr().String()
		go func() { _ = server.Serve(six) }()
	}
	if every, err := net.Listen("tcp", ":0"); err == nil {
		_, w.every, _ = net.SplitHostPort(every.Addr().String())
		go func() { _ = server.Serve(every) }()
	}
	for _, status := range []int{200, 404, 503} {
		clear, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.at["h2c"+strconv.Itoa(status)] = clear.Addr().String()
		h2 := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status) }), Protocols: &http.Protocols{}}
		h2.Protocols.SetUnencryptedHTTP2(true)
		w.closers = append(w.closers, func() { h2.Close() })
		go func() { _ = h2.Serve(clear) }()
	}
	w.listen(t, "proxy", proxy)
	w.listen(t, "proxy407", func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
}

// proxy serves one request as an HTTP proxy does, CONNECT included.
func proxy(c net.Conn) {
	reader := bufio.NewReader(c)
	r, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	host := r.Host
	if r.Method != http.MethodConnect {
		host = r.URL.Host
	}
	up, err := net.Dial("tcp", host)
	if err != nil {
		fmt.Fprint(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	defer up.Close()
	if r.Method == http.MethodConnect {
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, reader) }()
		_, _ = io.Copy(c, up)
		return
	}
	r.Header.Set("Connection", "close")
	_ = r.Write(up)
	_, _ = io.Copy(c, up)
}

// raw answers with bytes as they are.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if h, ok := w.(http.Hijacker); ok {
			c, b, _ := h.Hijack()
			_, _ = b.WriteString(text)
			_ = b.Flush()
			c.Close()
		}
	}
}

// only answers 200 when the request is as it should be, else 400.
func only(good func(*http.Request) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !good(r) {
			w.WriteHeader(http.StatusBadRequest)
		}
		fmt.Fprintln(w, "hello world")
	}
}

// packed answers with a compressed body.
func packed(encoding string, honest bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", encoding)
		var z io.WriteCloser
		switch encoding {
		case "gzip":
			z = gzip.NewWriter(w)
		case "br":
			z = brotli.NewWriter(w)
		default:
			z, _ = flate.NewWriter(w, 5)
		}
		if !honest {
			fmt.Fprint(w, "this is not compressed at all")
			return
		}
		fmt.Fprint(z, strings.Repeat("hello world ", 200))
		z.Close()
	}
}

func (w *world) pages() http.Handler {
	mux := http.NewServeMux()
	text := func(path string, status int, body string, headers ...string) {
		mux.HandleFunc(path, func(rw http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				rw.Header().Add(headers[i], headers[i+1])
			}
			rw.WriteHeader(status)
			_, _ = io.WriteString(rw, body)
		})
	}
	text("/ok", 200, "hello world\n", "X-Kind", "good", "X-Kind", "better")
	text("/created", 201, "made")
	text("/empty", 204, "")
	text("/partial", 206, "part")
	for _, s := range []int{400, 401, 403, 404, 410, 418, 429, 500, 502, 503, 504} {
		text("/"+strconv.Itoa(s), s, "hello error\n")
	}
	for _, s := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		text("/"+strconv.Itoa(s), s, "", "Location", "/ok")
	}
	text("/away", 302, "", "Location", "http://"+strings.Replace(w.at["http"], "127.0.0.1", "localhost", 1)+"/ok")
	text("/loop", 302, "", "Location", "/loop")
	text("/nowhere", 302, "no location")
	text("/badlocation", 302, "", "Location", "http://[::bad/")
	text("/ftp", 302, "", "Location", "ftp://127.0.0.1/x")
	text("/refusedlocation", 302, "", "Location", "http://127.0.0.1:1/x")
	text("/modified", 200, "x", "Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
	text("/unmodified", 200, "x", "Last-Modified", "yesterday")
	text("/json", 200, `{"status": "up", "n": 3}`, "Content-Type", "application/json")
	text("/large", 200, strings.Repeat("0123456789abcdef", 1<<16))
	text("/cookieset", 302, "", "Set-Cookie", "a=b; Path=/", "Location", "/cookie")
	mux.HandleFunc("/chain/{n}", func(rw http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("n"))
		if n == 0 {
			fmt.Fprintln(rw, "hello world")
			return
		}
		http.Redirect(rw, r, "/chain/"+strconv.Itoa(n-1), http.StatusFound)
	})
	mux.HandleFunc("/oauth", grants)
	mux.HandleFunc("/echo", echoes)
	mux.HandleFunc("/echo/head", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, headerText(r)) })
	mux.HandleFunc("/agent", only(func(r *http.Request) bool { return r.Header.Get("User-Agent") != "" }))
	mux.HandleFunc("/authority", only(func(r *http.Request) bool { return strings.HasPrefix(r.Host, "127.0.0.1:") }))
	mux.HandleFunc("/cookie", only(func(r *http.Request) bool { c, err := r.Cookie("a"); return err == nil && c.Value == "b" }))
	mux.HandleFunc("/post", only(func(r *http.Request) bool { return r.Method == http.MethodPost }))
	mux.HandleFunc("/body", only(func(r *http.Request) bool { b, _ := io.ReadAll(r.Body); return string(b) == "payload" }))
	mux.HandleFunc("/basic", only(func(r *http.Request) bool { u, p, ok := r.BasicAuth(); return ok && u == "user" && p == "pass" }))
	mux.HandleFunc("/bearer", only(func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer token" }))
	mux.HandleFunc("/host", only(func(r *http.Request) bool { return r.Host == "virtual.example" }))
	mux.HandleFunc("/header", only(func(r *http.Request) bool { return r.Header.Get("X-Test") == "yes" }))
	mux.HandleFunc("/acceptgzip", only(func(r *http.Request) bool { return r.Header.Get("Accept-Encoding") == "gzip" }))
	for _, e := range []string{"gzip", "deflate", "br"} {
		mux.HandleFunc("/"+e, packed(e, true))
		mux.HandleFunc("/false"+e, packed(e, false))
	}
	mux.HandleFunc("/garbage", raw("this is not HTTP\r\n\r\n"))
	mux.HandleFunc("/close", raw(""))
	mux.HandleFunc("/short", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello world"))
	mux.HandleFunc("/badchunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello world"))
	mux.HandleFunc("/http10", raw("HTTP/1.0 200 OK\r\n\r\nhello world"))
	mux.HandleFunc("/nolength", raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world"))
	mux.HandleFunc("/status999", raw("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"))
	mux.HandleFunc("/continue", raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"))
	mux.HandleFunc("/reset", func(rw http.ResponseWriter, _ *http.Request) {
		if h, ok := rw.(http.Hijacker); ok {
			c, _, _ := h.Hijack()
			if tc, ok := c.(*net.TCPConn); ok {
				_ = tc.SetLinger(0)
			}
			c.Close()
		}
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
	})
	mux.HandleFunc("/slowbody", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, "hello ")
		rw.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
	})
	mux.HandleFunc("/manyheaders", func(rw http.ResponseWriter, _ *http.Request) {
		for i := range 2000 {
			rw.Header().Set("X-"+strconv.Itoa(i), strings.Repeat("v", 50))
		}
		fmt.Fprint(rw, "hello world")
	})
	mux.HandleFunc("/hugeheader", raw("HTTP/1.1 200 OK\r\nX-Huge: "+strings.Repeat("x", 2<<20)+"\r\nContent-Length: 5\r\n\r\nhello"))
	mux.HandleFunc("/longstatus", raw("HTTP/1.1 200 "+strings.Repeat("fine ", 1000)+"\r\nContent-Length: 5\r\n\r\nhello"))
	mux.HandleFunc("/doublelength", raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"))
	mux.HandleFunc("/crlf", raw("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"))
	mux.HandleFunc("/upgrade", raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello"))
	mux.HandleFunc("/early", raw("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	mux.HandleFunc("/trailers", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"))
	mux.HandleFunc("/bigchunks", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nffffffffffff\r\nx"))
	mux.HandleFunc("/emptybody", raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	text("/utf16", 200, "h\x00e\x00l\x00l\x00o\x00", "Content-Type", "text/plain; charset=utf-16")
	text("/308post", 308, "", "Location", "/post")
	text("/deep", 302, "", "Location", strings.Repeat("a/../", 500)+"ok")
	text("/cookieaway", 302, "", "Set-Cookie", "a=b; Path=/", "Location", "http://"+strings.Replace(w.at["http"], "127.0.0.1", "localhost", 1)+"/cookie")
	text("/setcookies", 302, "", "Set-Cookie", "a=c; Path=/", "Set-Cookie", "a=b; Path=/; HttpOnly", "Location", "/cookie")
	mux.HandleFunc("/tohttps", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://"+w.at["https"]+"/ok", http.StatusFound)
	})
	return mux
}

// grants is a token server that knows one client.
func grants(w http.ResponseWriter, r *http.Request) {
	if id, secret, ok := r.BasicAuth(); !ok || id != "me" || secret != "secret" || r.FormValue("grant_type") != "client_credentials" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"access_token": "token", "token_type": "Bearer", "expires_in": 60}`)
}

// echoes answers with what the request was: the body's length then shows any difference.
func echoes(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s hello world\n%s\n%s", r.Method, r.URL, r.Host, headerText(r), body)
}

// headerText are the headers of a request but User-Agent, which differs.
func headerText(r *http.Request) string {
	r.Header.Del("User-Agent")
	var b strings.Builder
	_ = r.Header.Write(&b)
	return b.String()
}

func (w *world) serveTLS(t testing.TB) {
	t.Helper()
	serve := func(name string, c *certificate, change func(*tls.Config)) {
		config := &tls.Config{Certificates: []tls.Certificate{c.pair}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS10} //nolint:gosec // a target
		if change != nil {
			change(config)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.at[name] = l.Addr().String()
		server := &http.Server{Handler: w.pages(), TLSConfig: config, ErrorLog: silent(), Protocols: &http.Protocols{}}
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetHTTP2(slices.Contains(config.NextProtos, "h2"))
		w.closers = append(w.closers, func() { server.Close() })
		go func() { _ = server.ServeTLS(l, "", "") }()
	}
	good := w.issue(t, "good", w.ca, nil)
	serve("https", good, nil)
	serve("http2", good, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} })
	serve("tls12", good, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	serve("tls11", good, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 })
	serve("tls13", good, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 })
	serve("mutual", good, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(w.ca.cert)
	})
	serve("expired", w.issue(t, "expired", w.ca, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}), nil)
	serve("early", w.issue(t, "early", w.ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour) }), nil)
	serve("wrongname", w.issue(t, "wrongname", w.ca, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"other.example"}, nil }), nil)
	serve("selfsigned", w.issue(t, "selfsigned", nil, nil), nil)
	middle := w.issue(t, "middle", w.ca, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.NotAfter = true, true, x509.KeyUsageCertSign, time.Now().Add(10*24*time.Hour)
	})
	leaf := w.issue(t, "leaf", middle, nil)
	leaf.pair.Certificate = append(leaf.pair.Certificate, middle.pair.Certificate...)
	serve("chain", leaf, nil)
	w.listen(t, "nohandshake", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}
