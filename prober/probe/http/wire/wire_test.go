package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/prober/probe/http/wire"
)

// script is a connection whose peer has sent everything already and ends.
type script struct {
	net.Conn
	sent   *strings.Reader
	got    bytes.Buffer
	closed int
}

func (s *script) Read(p []byte) (int, error)  { return s.sent.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.got.Write(p) }
func (s *script) Close() error                { s.closed++; return nil }

// do exchanges a request for what the peer sends.
func do(t testing.TB, method, answer string) (resp *nethttp.Response, wrote, first bool, conn *script, err error) {
	req := httptest.NewRequest(method, "http://a.example.com/x?y=z", strings.NewReader("hello"))
	raw, err := wire.Prepare(req)
	if err != nil {
		t.Fatal(err)
	}
	conn = &script{sent: strings.NewReader(answer)}
	resp, err = wire.Do(conn, raw, req.Method, func() { wrote = true }, func() { first = true })
	return resp, wrote, first, conn, err
}

func TestARequestIsSentAndItsAnswerRead(t *testing.T) {
	resp, wrote, first, conn, err := do(t, "POST", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3;e=f\r\nabc\r\n0\r\nT: u\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	want := "POST /x?y=z HTTP/1.1\r\nHost: a.example.com\r\nUser-Agent: Go-http-client/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
	if conn.got.String() != want || !wrote || !first {
		t.Errorf("sent %q, %v, %v", conn.got.String(), wrote, first)
	}
	body, err := io.ReadAll(resp.Body)
	if string(body) != "abc" || err != nil || resp.StatusCode != 200 || resp.Header.Get("X-A") != "b" {
		t.Errorf("got %q, %v, %v", body, err, resp)
	}
	resp.Body.Close()
	resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil || conn.closed != 1 {
		t.Errorf("%v after it was closed %d times", err, conn.closed)
	}
}

func TestABadAnswerIsAnErrorAndEndsTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		first  bool
		want   error
	}{
		"nothing":         {"", false, io.ErrUnexpectedEOF},
		"half a line":     {"HTTP/1.1 2", true, nil},
		"half a head":     {"HTTP/1.1 200 OK\r\nA: b\r\n", true, io.ErrUnexpectedEOF},
		"only a 1xx":      {"HTTP/1.1 102 Processing\r\n\r\n", true, io.ErrUnexpectedEOF},
		"garbage":         {"SSH-2.0-OpenSSH\r\n", true, nil},
		"many headers":    {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 20_000), true, wire.ErrHeaderTooLong},
		"one long header": {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 1<<17), true, wire.ErrHeaderTooLong},
		"many 1xx":        {strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n", 5_000), true, wire.ErrHeaderTooLong},
	} {
		resp, _, first, conn, err := do(t, "GET", c.answer)
		if err == nil || resp != nil || c.want != nil && !errors.Is(err, c.want) || first != c.first || conn.closed != 1 {
			t.Errorf("%s: %v, %v, first byte %v, closed %d", name, resp, err, first, conn.closed)
		}
	}
}

// FuzzDo compares with a transport over the same script: both read the same answer, or neither does.
func FuzzDo(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.0 404 No\n\nabc", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 101 S\r\n\r\nx"} {
		f.Add("GET", s)
		f.Add("HEAD", s)
	}
	f.Fuzz(func(t *testing.T, method, answer string) {
		if method != "GET" && method != "HEAD" && method != "POST" {
			return
		}
		resp, _, _, conn, err := do(t, method, answer)
		var body []byte
		if err == nil {
			body, _ = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			resp.Body.Close()
		}
		if conn.closed != 1 {
			t.Fatalf("closed %d times", conn.closed)
		}
		want, wantBody, wantErr := plainly(method, answer)
		if len(answer) > wire.MaxHeader/2 {
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, and net/http says %v", answer, err, wantErr)
		}
		if err == nil && (resp.Status != want.Status || len(resp.Header) != len(want.Header) || resp.ContentLength != want.ContentLength || !bytes.Equal(body, wantBody)) {
			t.Fatalf("%q: %v %q, and net/http says %v %q", answer, resp, body, want, wantBody)
		}
	})
}

// plainly reads an answer by net/http alone, as its documentation says.
func plainly(method, answer string) (*nethttp.Response, []byte, error) {
	r := bufio.NewReader(strings.NewReader(answer))
	for {
		resp, err := nethttp.ReadResponse(r, &nethttp.Request{Method: method})
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode >= 100 && resp.StatusCode <= 199 && resp.StatusCode != 101 {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		return resp, body, nil
	}
}
