package http

import (
	nethttp "net/http"
	"net/http/cookiejar"
	"net/url"

	"golang.org/x/net/publicsuffix"
)

// maxCookieBytes is how much of cookies one probe keeps; what comes later is not kept.
const maxCookieBytes = 64 << 10

// jar keeps the cookies that are set during one probe. The nil jar is empty.
type jar struct {
	kept *cookiejar.Jar
	size int
}

// keepCookies keeps what an answer sets, for the requests that follow it.
func (v *visit) keepCookies(u *url.URL, resp *nethttp.Response) {
	if len(resp.Header["Set-Cookie"]) == 0 {
		return
	}
	if v.jar == nil {
		kept, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
		if err != nil { // never, see cookiejar.New
			return
		}
		v.jar = &jar{kept: kept}
	}
	var fit []*nethttp.Cookie
	for _, c := range resp.Cookies() {
		if size := len(c.Raw); v.jar.size+size <= maxCookieBytes {
			v.jar.size += size
			fit = append(fit, c)
		}
	}
	v.jar.kept.SetCookies(u, fit)
}

// cookies are those for a URL.
func (j *jar) cookies(u *url.URL) []*nethttp.Cookie {
	if j == nil {
		return nil
	}
	return j.kept.Cookies(u)
}
