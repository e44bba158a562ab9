package http_test

import (
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shop is a site with a login: a form with a token, a session cookie, orders as JSON, and a logout.
func shop(t *testing.T) *httptest.Server {
	return serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		cookie, _ := r.Cookie("session")
		in := cookie != nil && cookie.Value == "s1"
		switch r.URL.Path {
		case "/login":
			if r.Method == "GET" {
				fmt.Fprint(w, `<form><input name="csrf" value="t&k=1"></form>`)
				return
			}
			_ = r.ParseForm()
			if r.PostForm.Get("csrf") != "t&k=1" || r.PostForm.Get("user") != "probe" {
				w.WriteHeader(403)
				return
			}
			nethttp.SetCookie(w, &nethttp.Cookie{Name: "session", Value: "s1", Path: "/"})
			w.Header().Set("X-Api-Key", "key-7")
			nethttp.Redirect(w, r, "/home", nethttp.StatusSeeOther)
		case "/home":
			w.Header().Set("X-Home", "h")
		case "/orders":
			if !in || r.Header.Get("X-Home") != "h" {
				w.WriteHeader(401)
				return
			}
			fmt.Fprint(w, `{"items": [{"id": 42}], "next": "/orders/42?full=1"}`)
		case "/orders/42":
			b, _ := io.ReadAll(r.Body)
			fmt.Fprint(w, r.Method, " ", r.URL.RawQuery, " ", string(b), " ", r.Header.Get("Authorization"))
		default:
			w.WriteHeader(404)
		}
	})
}

// visitShop is a login and what follows it.
func visitShop() *meshv1.HttpProbe {
	return &meshv1.HttpProbe{BearerToken: "tok", Steps: []*meshv1.HttpStep{
		{Name: "form", Url: "/login", Captures: []*meshv1.Capture{{Name: "csrf", Regexp: `name="csrf" value="([^"]+)"`}}},
		{Name: "login", Url: "login", Form: []*meshv1.FormField{{Name: "csrf", Value: "${csrf}"}, {Name: "user", Value: "probe"}},
			Captures: []*meshv1.Capture{{Name: "home", Header: "X-Home"}}, Expect: []string{`response.uri.endsWith("/home")`, `response.redirects == 1`}},
		{Url: "/orders", Headers: []*meshv1.HttpHeader{{Name: "X-Home", Value: "${home}"}}, Expect: []string{`response.json.items.size() == 1`},
			Captures: []*meshv1.Capture{{Name: "id", JsonPath: "items.0.id"}, {Name: "next", JsonPath: "next"}}},
		{Name: "order", Method: "PUT", Url: "${next}", Body: "id=${id} $${id}"},
	}, Expect: []string{`response.body == "PUT full=1 id=42 ${id} Bearer tok"`, `response.captures.id == "42"`}}
}

func TestStepsPassOnWhatTheyCaptureAndTheirCookies(t *testing.T) {
	r := run(t, shop(t).URL, visitShop())
	probetest.OK().Match(t, r)
	if len(r.Steps) != 4 || r.Steps[2].Name != "3" || r.Steps[3].Outcome != meshv1.Result_OK || r.Steps[0].Duration.AsDuration() <= 0 || r.Http.Status != 200 || r.Http.Redirects != 1 {
		t.Errorf("got %v", r)
	}
}

func TestAFailingStepIsNamed(t *testing.T) {
	s := shop(t)
	fails := func(class meshv1.Result_ErrorClass, phase meshv1.Result_Phase, sentence string) probetest.Want {
		return probetest.Fail(class, phase, sentence)
	}
	const expectation = meshv1.Result_EXPECTATION
	for name, c := range map[string]struct {
		change func(*meshv1.HttpProbe)
		taken  int
		want   probetest.Want
	}{
		"status":       {func(o *meshv1.HttpProbe) { o.Steps[1].Form = o.Steps[1].Form[1:] }, 2, fails(expectation, meshv1.Result_EXPECT, "")},
		"bad status":   {func(o *meshv1.HttpProbe) { o.Steps[1].Form, o.Steps[1].Expect = o.Steps[1].Form[:1], nil }, 2, fails(expectation, meshv1.Result_EXPECT, "step login: status 403 Forbidden; without expectations it must be 200 to 299")},
		"expectation":  {func(o *meshv1.HttpProbe) { o.Steps[2].Expect = []string{`response.json.items.size() == 2`} }, 3, fails(expectation, meshv1.Result_EXPECT, "step 3: expectation response.json.items.size() == 2 does not hold")},
		"capture":      {func(o *meshv1.HttpProbe) { o.Steps[0].Captures[0].Regexp = "no such" }, 1, fails(expectation, meshv1.Result_EXPECT, "step form: capture csrf: no such does not match")},
		"header":       {func(o *meshv1.HttpProbe) { o.Steps[1].Captures[0].Header = "X-None" }, 2, fails(expectation, meshv1.Result_EXPECT, "step login: capture home: the answer has no header X-None")},
		"unreachable":  {func(o *meshv1.HttpProbe) { o.Steps[3].Url = "http://" + probetest.RefusedAddress(t) }, 4, fails(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "step order: connect to 127.0.0.1:")},
		"not a URI":    {func(o *meshv1.HttpProbe) { o.Steps[3].Url = "ftp${next}" }, 4, fails(expectation, meshv1.Result_CONNECT, "")},
		"another host": {func(o *meshv1.HttpProbe) { o.Steps[3].Url = "gopher://${id}/" }, 4, fails(expectation, meshv1.Result_CONNECT, "step order: it cannot be sent: \"gopher://42/\" is not an http or https URI")},
	} {
		t.Run(name, func(t *testing.T) {
			o := visitShop()
			c.change(o)
			r := run(t, s.URL, o)
			c.want.Phase = r.FailedPhase
			if name == "status" || name == "not a URI" {
				c.want.Error = "step "
			}
			c.want.Match(t, r)
			if n := len(r.Steps); n != c.taken || r.Steps[n-1].Outcome != meshv1.Result_FAIL || r.Steps[n-1].Error == "" {
				t.Errorf("steps %v", r.Steps)
			}
			if name == "unreachable" && (r.Http != nil || r.Evidence.StatusLine != "") {
				t.Errorf("it tells of the step before: %v", r)
			}
		})
	}
}

func TestStepsToAnotherHostCarryTheirOwnHeadersOnly(t *testing.T) {
	other := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization"), r.Header.Get("X-Check"), "|", r.Header.Get("X-Step"), "|", r.Header.Get("Cookie"))
	})
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Set-Cookie", "a=b")
		fmt.Fprint(w, other.URL)
	})
	o := &meshv1.HttpProbe{BearerToken: "secret", Headers: map[string]string{"X-Check": "secret"}, Steps: []*meshv1.HttpStep{
		{Captures: []*meshv1.Capture{{Name: "other"}}},
		{Url: "${other}", Headers: []*meshv1.HttpHeader{{Name: "X-Step", Value: "mine"}}}}}
	o.Steps[1].Url = strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	o.Expect = []string{`response.body == "|mine|"`}
	probetest.OK().Match(t, run(t, s.URL, o))
}

func TestCapturedValuesCannotSmuggle(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, "x\r\nX-Evil: 1", string(b))
	})
	step := &meshv1.HttpStep{Captures: []*meshv1.Capture{{Name: "v"}}}
	header := &meshv1.HttpStep{Name: "second", Headers: []*meshv1.HttpHeader{{Name: "X-A", Value: "${v}"}}}
	r := run(t, s.URL, &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{step, header}})
	if !strings.Contains(r.Error, "step second: it cannot be sent: header X-A: what was captured for it has control characters") {
		t.Errorf("got %v", r)
	}
	address := &meshv1.HttpStep{Name: "second", Url: "/${v}"}
	if r := run(t, s.URL, &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{proto.CloneOf(step), address}}); !strings.Contains(r.Error, "step second: it cannot be sent") {
		t.Errorf("got %v", r)
	}
	graphql := &meshv1.HttpStep{Name: "second", Graphql: &meshv1.GraphQl{Query: "{ a }", Variables: &structpb.Struct{Fields: map[string]*structpb.Value{
		"list": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue(`"${v}`)}})}}}}
	if r := run(t, s.URL, &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{proto.CloneOf(step), graphql}}); !strings.Contains(string(r.Evidence.Body), `"variables":{"list":["\"x\r\nX-Evil: 1"]}`) {
		t.Errorf("got %s", r.Evidence.Body)
	}
}
