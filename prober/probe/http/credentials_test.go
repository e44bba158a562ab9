package http_test

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// digestServer demands digest authentication of user u with password p:"w, by RFC 7616, and counts requests.
func digestServer(t *testing.T, challenge string, algorithm func() hash.Hash, qop, sess bool, requests *atomic.Int32) string {
	sum := func(parts ...string) string {
		h := algorithm()
		_, _ = io.WriteString(h, strings.Join(parts, ":"))
		return hex.EncodeToString(h.Sum(nil))
	}
	return serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		requests.Add(1)
		b, _ := io.ReadAll(r.Body)
		given := make(map[string]string)
		for _, part := range strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Digest "), ", ") {
			k, v, _ := strings.Cut(part, "=")
			given[k] = strings.ReplaceAll(strings.Trim(v, `"`), `\"`, `"`)
		}
		secret := sum("u", `a "realm"`, `p:"w`)
		if sess {
			secret = sum(secret, "n0", given["cnonce"])
		}
		want := sum(secret, "n0", sum(r.Method, r.URL.RequestURI()))
		if qop {
			want = sum(secret, "n0", given["nc"], given["cnonce"], "auth", sum(r.Method, r.URL.RequestURI()))
		}
		if given["response"] != want || given["uri"] != r.URL.RequestURI() || given["username"] != "u" {
			w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
			w.Header().Add("WWW-Authenticate", challenge)
			w.WriteHeader(401)
			return
		}
		fmt.Fprint(w, "welcome ", given["nc"], string(b))
	}).URL
}

func TestDigestChallengesAreAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		challenge string
		hash      func() hash.Hash
		qop, sess bool
	}{
		"rfc2069":   {`Digest realm="a \"realm\"", nonce="n0"`, md5.New, false, false},
		"md5":       {`Digest realm="a \"realm\"", nonce="n0", qop="auth,auth-int", opaque="o", algorithm=MD5`, md5.New, true, false},
		"md5-sess":  {`digest qop=auth,realm="a \"realm\"",nonce="n0",algorithm=MD5-sess`, md5.New, true, true},
		"sha256":    {`Digest realm="a \"realm\"", nonce="n0", qop="auth", algorithm=SHA-256`, sha256.New, true, false},
		"strongest": {`Negotiate abc==, Digest realm="a \"realm\"", nonce="n0", qop="auth", algorithm=MD5, Digest realm="a \"realm\"", nonce="n0", qop="auth", algorithm=SHA-256`, sha256.New, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			u := digestServer(t, c.challenge, c.hash, c.qop, c.sess, &requests)
			want := "welcome x"
			if c.qop {
				want = "welcome 00000001x"
			}
			probetest.OK().Match(t, run(t, u+"/a?b=c", &meshv1.HttpProbe{Body: "x", DigestAuth: &meshv1.DigestAuth{Username: "u", Password: `p:"w`}, Expect: []string{fmt.Sprintf("response.body == %q", want)}}))
			requests.Store(0)
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 401").Match(t, run(t, u, &meshv1.HttpProbe{DigestAuth: &meshv1.DigestAuth{Username: "u", Password: "wrong"}}))
			if n := requests.Load(); n != 2 {
				t.Errorf("%d requests with a wrong password", n)
			}
		})
	}
	for challenge, want := range map[string]string{
		`Digest realm="a", nonce="n", algorithm=SHA-3`: `its algorithm is "SHA-3"`,
		`Digest realm="a", nonce="n", qop="auth-int"`:  `its qop is "auth-int"`,
		`Digest realm="a"`: "it has no nonce",
		`Digest realm="a", nonce="n", algorithm="MD5-sess"`: "needs qop auth",
	} {
		var requests atomic.Int32
		probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, want).Match(t,
			run(t, digestServer(t, challenge, md5.New, false, false, &requests), &meshv1.HttpProbe{DigestAuth: &meshv1.DigestAuth{Username: "u"}}))
	}
}

// oauthServer is a server of tokens; it gives token-1, token-2, ...
type oauthServer struct {
	url    string
	tokens atomic.Int32
	status atomic.Int32
	body   atomic.Value // what to answer in place of a token
	asked  atomic.Value // url.Values of the last form, with "basic"
}

func newOAuthServer(t *testing.T) *oauthServer {
	s := &oauthServer{}
	s.status.Store(200)
	s.url = serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_ = r.ParseForm()
		user, password, _ := r.BasicAuth()
		r.PostForm.Set("basic", user+":"+password)
		s.asked.Store(r.PostForm)
		n := s.tokens.Add(1)
		w.WriteHeader(int(s.status.Load()))
		if body, ok := s.body.Load().(string); ok && body != "" {
			fmt.Fprint(w, body)
			return
		}
		fmt.Fprintf(w, `{"access_token": "token-%d", "token_type": "Bearer", "expires_in": 3600}`, n)
	}).URL
	return s
}

func TestATokenIsFetchedKeptAndRenewed(t *testing.T) {
	auth := newOAuthServer(t)
	var good atomic.Value
	good.Store("Bearer token-1")
	target := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.Header.Get("Authorization") != good.Load() {
			w.WriteHeader(401)
		}
	})
	c, parsed := probetest.Check(t, target.URL, 10*time.Second, func(c *meshv1.Check) {
		c.Http = &meshv1.HttpProbe{Oauth2: &meshv1.OAuth2ClientCredentials{TokenUrl: auth.url + "/token", ClientId: "c:1", ClientSecret: "s", Scopes: []string{"a", "b"}, Parameters: map[string]string{"audience": "x"}}}
	})
	r, err := http.Compile(c, parsed, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	probeOnce := func(o probe.Options, want probetest.Want, fetched int32) {
		t.Helper()
		before := auth.tokens.Load()
		got := r.Probe(t.Context(), o)
		probetest.Promises(t, got)
		want.Match(t, got)
		if n := auth.tokens.Load() - before; n != fetched {
			t.Errorf("%d tokens were fetched, want %d", n, fetched)
		}
		if (got.GetHttp().GetTokenDuration() != nil) != (fetched > 0) {
			t.Errorf("token duration %v", got.Http)
		}
		if sum := got.Timings.GetConnect().AsDuration() + got.Timings.GetProcessing().AsDuration(); fetched > 0 && sum+got.Http.TokenDuration.AsDuration() > got.Duration.AsDuration() {
			t.Errorf("the phases hold the time of the token: %v of %v", got.Timings, got.Duration)
		}
	}
	probeOnce(probe.Options{}, probetest.OK(), 1)
	form, _ := auth.asked.Load().(url.Values)
	if form.Get("grant_type") != "client_credentials" || form.Get("scope") != "a b" || form.Get("audience") != "x" || form.Get("basic") != "c%3A1:s" {
		t.Errorf("asked with %v", form)
	}
	probeOnce(probe.Options{}, probetest.OK(), 0)
	good.Store("Bearer token-2")
	probeOnce(probe.Options{}, probetest.OK(), 1) // refused, so renewed
	good.Store("Bearer token-3")
	probeOnce(probe.Options{Fresh: true}, probetest.OK(), 1)
	good.Store("nothing")
	probeOnce(probe.Options{Fresh: true}, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 401"), 1)
}

func TestTheFailureOfATokenNamesItsServer(t *testing.T) {
	target := serve(t, func(nethttp.ResponseWriter, *nethttp.Request) { t.Error("the target was asked") })
	auth := newOAuthServer(t)
	check := func(tokenURL string, style meshv1.OAuth2ClientCredentials_AuthStyle, want probetest.Want) {
		t.Helper()
		want.Error = "no token from " + tokenURL + ", so the target was not asked: " + want.Error
		want.Match(t, within(t, 2*time.Second, target.URL, &meshv1.HttpProbe{Oauth2: &meshv1.OAuth2ClientCredentials{TokenUrl: tokenURL, ClientId: "c", ClientSecret: "s", AuthStyle: style}}))
	}
	refused := probetest.RefusedAddress(t)
	check("http://"+refused, 0, probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connect to "+refused+": connection refused"))
	check("http://"+probetest.Listen(t, probetest.Hang), 0, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "wait for the answer of"))
	auth.status.Store(401)
	auth.body.Store(`{"error": "invalid_client", "error_description": "who are you"}`)
	check(auth.url, meshv1.OAuth2ClientCredentials_BODY, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_TRANSFER, "it refused with invalid_client (401 Unauthorized) who are you"))
	if form, _ := auth.asked.Load().(url.Values); form.Get("client_id") != "c" || form.Get("client_secret") != "s" || form.Get("basic") != ":" {
		t.Errorf("asked with %v", form)
	}
	auth.body.Store("<html>")
	check(auth.url, 0, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_TRANSFER, "it answered 401 Unauthorized"))
	auth.status.Store(200)
	check(auth.url, 0, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "its answer is not what RFC 6749 says"))
	auth.body.Store(`{"access_token": "a\nb"}`)
	check(auth.url, 0, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "its answer has no access_token"))
	auth.body.Store(`{"access_token": "a", "token_type": "mac"}`)
	check(auth.url, 0, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "its token is of type mac, not Bearer"))
	auth.body.Store(strings.Repeat(" ", 1<<20))
	check(auth.url, 0, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "its answer is not what RFC 6749 says"))
}

// TestRequestsAreSignedAsAWSDoes checks the signature by the steps of AWS's documentation, from what arrived.
func TestRequestsAreSignedAsAWSDoes(t *testing.T) {
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		_, _ = io.WriteString(h, text)
		return h.Sum(nil)
	}
	digest := func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		credentials := strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKID/")
		scope, rest, _ := strings.Cut(credentials, ", SignedHeaders=")
		names, signature, _ := strings.Cut(rest, ", Signature=")
		canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.Query().Encode() + "\n"
		for _, name := range strings.Split(names, ";") {
			value := strings.TrimSpace(r.Header.Get(name))
			switch name {
			case "host":
				value = r.Host
			case "content-length":
				value = fmt.Sprint(len(body))
			}
			canonical += name + ":" + value + "\n"
		}
		canonical += "\n" + names + "\n" + digest(body)
		day, _, _ := strings.Cut(scope, "/")
		key := mac(mac(mac(mac([]byte("AWS4secret"), day), "eu-central-1"), "execute-api"), "aws4_request")
		want := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+r.Header.Get("X-Amz-Date")+"\n"+scope+"\n"+digest([]byte(canonical))))
		if signature != want || !slices.Contains(strings.Split(names, ";"), "host") || r.Header.Get("X-Amz-Security-Token") != "tok" {
			w.WriteHeader(403)
		}
		fmt.Fprint(w, canonical)
	})
	o := &meshv1.HttpProbe{Body: "hello", Headers: map[string]string{"X-A": "b"}, AwsSigv4: &meshv1.AwsSigV4{AccessKeyId: "AKID", SecretAccessKey: "secret", SessionToken: "tok", Region: "eu-central-1", Service: "execute-api"}}
	probetest.OK().Match(t, run(t, s.URL+"/stage/items?b=2&a=1", o))
	o.AwsSigv4.SecretAccessKey = "other"
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 403").Match(t, run(t, s.URL+"/stage", o))
}

func TestNoCredentialsGoToAnotherHost(t *testing.T) {
	other := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("WWW-Authenticate", `Digest realm="a", nonce="n"`)
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(418)
		}
	})
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/away" {
			nethttp.Redirect(w, r, other.URL, nethttp.StatusTemporaryRedirect)
		}
	})
	auth := newOAuthServer(t)
	for _, o := range []*meshv1.HttpProbe{
		{DigestAuth: &meshv1.DigestAuth{Username: "u"}},
		{Oauth2: &meshv1.OAuth2ClientCredentials{TokenUrl: auth.url, ClientId: "c"}},
		{AwsSigv4: &meshv1.AwsSigV4{AccessKeyId: "a", SecretAccessKey: "b", Region: "c", Service: "d"}},
	} {
		o.Expect = []string{"response.status == 418"}
		probetest.OK().Match(t, run(t, s.URL+"/away", o))
	}
}
