package http

import (
	"bytes"
	"io"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// FuzzChallenges reads WWW-Authenticate: it ends, keeps to its limits, and answers with a header that can be sent.
func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Digest realm="a \"b\"", nonce="n", qop="auth, auth-int", algorithm=SHA-256, userhash=true`, `Basic realm="x", Digest nonce=n`,
		"Negotiate abc==,\tdigest nonce = \"n", `,,, = "`, `Digest nonce="n", algorithm=MD5-sess, qop=auth, stale=TRUE, opaque="\`} {
		f.Add(s, "/a?b=c")
	}
	f.Fuzz(func(t *testing.T, header, uri string) {
		schemes := parseChallenges([]string{header, header})
		if len(schemes) > maxChallenges {
			t.Fatalf("%d challenges", len(schemes))
		}
		for _, s := range schemes {
			if len(s.params) > maxChallengeParams || s.name == "" {
				t.Fatalf("challenge %v", s)
			}
		}
		c, _ := chooseChallenge(schemes)
		if c == nil {
			return
		}
		if c.nonce == "" {
			t.Fatal("a challenge without a nonce was chosen")
		}
		got := c.credentials("user", "password", "GET", "/", "cnonce", 1)
		if httpguts.ValidHeaderFieldValue(header) && !httpguts.ValidHeaderFieldValue(got) {
			t.Fatalf("%q cannot be sent", got)
		}
		again := parseChallenges([]string{got})
		if len(again) != 1 || again[0].params["nonce"] != c.nonce || again[0].params["realm"] != c.realm {
			t.Fatalf("%q says %v of nonce %q and realm %q", got, again, c.nonce, c.realm)
		}
	})
}

// FuzzDecode undoes codings: whatever comes in, at most the limit comes out, and what was encoded comes out as it was.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"gzip", "deflate", "br", "zstd"} {
		body, err := compress(name, []byte("hello, hello, hello"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(name, body)
		f.Add(name+", gzip", body)
	}
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		const limit = 10_000
		resp := &nethttp.Response{Header: nethttp.Header{"Content-Encoding": {name}}, Body: io.NopCloser(bytes.NewReader(body))}
		d, err := decode(resp, limit)
		if err != nil || d == nil {
			return
		}
		defer d.close()
		g := &answer{}
		if err := g.readAll(d, limit); err != nil {
			if f := d.failure(err, &probe.Attempt{}); f == nil {
				t.Fatal("no failure")
			}
		}
		if len(g.body) > limit || d.wire.read > limit+codingSlack+4<<10 {
			t.Fatalf("%d bytes of %d", len(g.body), d.wire.read)
		}
		if coding := codingName(codingOf(name)); coding != "" && len(body) <= limit {
			packed, err := compress(coding, body)
			if err != nil {
				t.Fatal(err)
			}
			resp := &nethttp.Response{Header: nethttp.Header{"Content-Encoding": {name}}, Body: io.NopCloser(bytes.NewReader(packed))}
			back, _ := decode(resp, limit)
			defer back.close()
			if out, err := io.ReadAll(back); err != nil || !bytes.Equal(out, body) {
				t.Fatalf("%d bytes came back as %d, %v", len(body), len(out), err)
			}
		}
	})
}

// FuzzToken reads the answer of a server of tokens: a token that comes out can be sent, and is kept for a bounded time.
func FuzzToken(f *testing.F) {
	f.Add(200, []byte(`{"access_token": "a", "token_type": "Bearer", "expires_in": 3600}`))
	f.Add(200, []byte(`{"access_token": "a", "expires_in": "1e300"}`))
	f.Add(400, []byte(`{"error": "invalid_client"}`))
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		token, life, err := readToken(&probe.Attempt{}, "status", code, body)
		if err != nil {
			return
		}
		if token == "" || len(token) > maxTokenBytes || !httpguts.ValidHeaderFieldValue(token) || life < 0 || life > maxTokenLife {
			t.Fatalf("token %q for %s", token, life)
		}
	})
}

// FuzzGraphQL judges answers to queries: an answer with errors is never good.
func FuzzGraphQL(f *testing.F) {
	f.Add([]byte(`{"data": {"a": 1}}`))
	f.Add([]byte(`{"errors": [{"message": "x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		g := &answer{body: body, graphql: &meshv1.GraphQl{}}
		if failure := g.judgeGraphQL(); failure == nil && !strings.Contains(strings.ToLower(string(body)), `data`) && !bytes.Contains(body, []byte(`\u`)) {
			t.Fatalf("%q is good", body)
		}
	})
}

func TestATokenIsKeptUntilShortlyBeforeItsEnd(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	k := &tokens{newest: "a", expires: now}
	if k.kept(now.Add(-time.Second)) != "a" || k.kept(now) != "" {
		t.Error("the token is not kept until its end")
	}
}

// TestDigestAgreesWithTheRFC has the examples of RFC 7616, section 3.9.1, and of RFC 2617, section 3.5.
func TestDigestAgreesWithTheRFC(t *testing.T) {
	const both = `realm="http-auth@example.org", qop="auth, auth-int", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`
	for _, c := range []struct{ challenge, user, password, uri, cnonce, want string }{
		{"Digest algorithm=MD5, " + both, "Mufasa", "Circle of Life", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "8ca523f5e9506fed4657c9700eebdbec"},
		{"Digest algorithm=SHA-256, " + both, "Mufasa", "Circle of Life", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"},
		{`Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`, "Mufasa", "Circle Of Life", "/dir/index.html", "0a4f113b", "6629fae49393a05397450978507c4ef1"},
	} {
		found, why := chooseChallenge(parseChallenges([]string{c.challenge}))
		if found == nil {
			t.Fatal(why)
		}
		if got := found.credentials(c.user, c.password, "GET", c.uri, c.cnonce, 1); !strings.Contains(got, `response="`+c.want+`"`) {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
