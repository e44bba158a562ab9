package http

import (
	"crypto/md5" //nolint:gosec // what RFC 7616 still has, and most servers speak
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	nethttp "net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of WWW-Authenticate; what is beyond them is not read.
const (
	maxChallenges      = 16
	maxChallengeParams = 16
)

// challenge is a demand for digest authentication (RFC 7616, section 3.3) that can be met.
type challenge struct {
	realm, nonce, opaque string
	algorithm            string // as the server wrote it; empty when it did not
	sess                 bool
	qop                  bool // quality of protection `auth`; none in the form of RFC 2069
	userhash             bool
	stale                bool
	hash                 func() hash.Hash
	strength             int
}

// scheme is one challenge of WWW-Authenticate, whatever it demands.
type scheme struct {
	name   string // in lower case
	params map[string]string
}

// challenged takes a challenge in. again tells whether the request is to be sent once more.
func (v *visit) challenged(resp *nethttp.Response) (again bool, err error) {
	found, why := chooseChallenge(parseChallenges(resp.Header["Www-Authenticate"]))
	switch {
	case found == nil && why == "":
		return false, nil // no digest: the answer is what it is
	case found == nil:
		return false, probe.Failf(v.a, meshv1.Result_PROTOCOL, "the digest challenge of %s cannot be answered: %s", v.a.Remote(), why)
	case v.digest != nil && !found.stale && v.digest.nonce == found.nonce:
		return false, nil // the same again: the credentials are refused
	}
	v.digest, v.digestCount = found, 0
	return true, nil
}

// chooseChallenge is the strongest digest that can be met; nil with a reason, or with none when no digest is asked for.
func chooseChallenge(schemes []scheme) (best *challenge, why string) {
	for _, s := range schemes {
		if s.name != "digest" {
			continue
		}
		c, problem := readChallenge(s.params)
		if problem != "" {
			why = problem
			continue
		}
		if best == nil || c.strength > best.strength {
			best = c
		}
	}
	return best, why
}

// readChallenge makes a challenge of its parameters, or says what is wrong with it.
func readChallenge(p map[string]string) (*challenge, string) {
	c := &challenge{realm: p["realm"], nonce: p["nonce"], opaque: p["opaque"], algorithm: p["algorithm"],
		userhash: strings.EqualFold(p["userhash"], "true"), stale: strings.EqualFold(p["stale"], "true")}
	if c.nonce == "" {
		return nil, "it has no nonce"
	}
	name, sess := strings.CutSuffix(strings.ToLower(c.algorithm), "-sess")
	c.sess = sess
	switch name {
	case "", "md5":
		c.hash, c.strength = md5.New, 1
	case "sha-256":
		c.hash, c.strength = sha256.New, 2
	case "sha-512-256":
		c.hash, c.strength = sha512.New512_256, 3
	default:
		return nil, fmt.Sprintf("its algorithm is %q; MD5, SHA-256 and SHA-512-256 are known", short(c.algorithm))
	}
	if q, given := p["qop"]; given {
		offered := strings.FieldsFunc(strings.ToLower(q), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
		if !slices.Contains(offered, "auth") {
			return nil, fmt.Sprintf("its qop is %q; auth is known", short(q))
		}
		c.qop = true
	}
	if c.sess && !c.qop {
		return nil, "its algorithm needs qop auth, which it does not offer"
	}
	return c, ""
}

// digestCredentials is the header that answers the challenge for one request.
func (v *visit) digestCredentials(h hop) string {
	v.digestCount++
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	o := v.options.GetDigestAuth()
	return v.digest.credentials(o.GetUsername(), o.GetPassword(), h.method, h.url.RequestURI(), hex.EncodeToString(random[:]), v.digestCount)
}

// credentials is the value of Authorization (RFC 7616, section 3.4).
func (c *challenge) credentials(username, password, method, uri, cnonce string, count uint32) string {
	sum := func(parts ...string) string {
		h := c.hash()
		h.Write([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(h.Sum(nil))
	}
	nc := fmt.Sprintf("%08x", count)
	secret := sum(username, c.realm, password)
	if c.sess {
		secret = sum(secret, c.nonce, cnonce)
	}
	response := sum(secret, c.nonce, sum(method, uri))
	if c.qop {
		response = sum(secret, c.nonce, nc, cnonce, "auth", sum(method, uri))
	}
	if c.userhash {
		username = sum(username, c.realm)
	}
	out := []string{"username=" + quote(username), "realm=" + quote(c.realm), "nonce=" + quote(c.nonce), "uri=" + quote(uri), "response=" + quote(response)}
	if c.algorithm != "" {
		out = append(out, "algorithm="+c.algorithm)
	}
	if c.opaque != "" {
		out = append(out, "opaque="+quote(c.opaque))
	}
	if c.qop {
		out = append(out, "qop=auth", "nc="+nc, "cnonce="+quote(cnonce))
	}
	if c.userhash {
		out = append(out, "userhash=true")
	}
	return "Digest " + strings.Join(out, ", ")
}

// quote is a quoted-string (RFC 9110, section 5.6.4).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// parseChallenges reads WWW-Authenticate (RFC 9110, section 11.6.1): schemes with parameters, several in one line or one a line. What it does not understand it
// steps over, as clients do.
func parseChallenges(lines []string) []scheme {
	var out []scheme
	for _, line := range lines {
		for line = trimSeparators(line); line != "" && len(out) < maxChallenges; line = trimSeparators(line) {
			word, rest := token(line)
			if word == "" {
				line = line[1:]
				continue
			}
			value, after, isParam := param(rest)
			if !isParam {
				out = append(out, scheme{name: strings.ToLower(word), params: make(map[string]string)})
				line = rest
				continue
			}
			if n := len(out); n > 0 && len(out[n-1].params) < maxChallengeParams {
				if k := strings.ToLower(word); out[n-1].params[k] == "" {
					out[n-1].params[k] = value
				}
			}
			line = after
		}
	}
	return out
}

// param is the value behind an equals sign: a token or a quoted-string.
func param(s string) (value, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(s, "=") {
		return "", s, false
	}
	s = strings.TrimLeft(s[1:], " \t")
	if !strings.HasPrefix(s, `"`) {
		value, rest = token(s)
		return value, rest, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), "", true // the end of the line ends it too
}

// token is the token (RFC 9110, section 5.6.2) that s begins with.
func token(s string) (word, rest string) {
	n := 0
	for n < len(s) && httpguts.IsTokenRune(rune(s[n])) {
		n++
	}
	return s[:n], s[n:]
}

func trimSeparators(s string) string { return strings.TrimLeft(s, " \t,") }
