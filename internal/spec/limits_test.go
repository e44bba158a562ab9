package spec_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestBoundsAndAddressesAreCheckedAgainstTheRestOfTheCheck(t *testing.T) {
	second := durationpb.New(time.Second)
	for want, change := range map[string]func(*meshv1.Check){
		"": func(c *meshv1.Check) {
			c.FailAbove, c.DegradedAbove = &meshv1.PhaseLimits{Total: second}, &meshv1.PhaseLimits{Total: durationpb.New(999 * time.Millisecond), Resolve: second}
			c.EachAddress = &meshv1.EachAddress{MaxAddresses: 16, MinHealthy: 1}
		},
		"fail_above.connect: 100µs is shorter than 1ms": func(c *meshv1.Check) {
			c.FailAbove = &meshv1.PhaseLimits{Connect: durationpb.New(100 * time.Microsecond)}
		},
		"degraded_above.transfer: 11s is longer than the timeout of 10s, so it would never be exceeded": func(c *meshv1.Check) {
			c.DegradedAbove = &meshv1.PhaseLimits{Transfer: durationpb.New(11 * time.Second)}
		},
		"degraded_above.total: 1s is not below fail_above.total": func(c *meshv1.Check) {
			c.FailAbove, c.DegradedAbove = &meshv1.PhaseLimits{Total: second}, &meshv1.PhaseLimits{Total: second}
		},
		"each_address.max_addresses: 17 is not 1 to 16":                                    func(c *meshv1.Check) { c.EachAddress = &meshv1.EachAddress{MaxAddresses: 17} },
		"each_address.min_healthy: -1 is not 1 to 16":                                      func(c *meshv1.Check) { c.EachAddress = &meshv1.EachAddress{MinHealthy: -1} },
		"each_address.min_healthy: 9 is more than the 8 addresses that are probed at most": func(c *meshv1.Check) { c.EachAddress = &meshv1.EachAddress{MinHealthy: 9} },
		"each_address: is for a name, and 192.0.2.7 is one address": func(c *meshv1.Check) {
			c.Uri, c.EachAddress = "https://192.0.2.7/", &meshv1.EachAddress{}
		},
		"each_address: is not for kind dns": func(c *meshv1.Check) {
			c.Uri, c.EachAddress = "dns://ns.example.com/a", &meshv1.EachAddress{}
		},
		"each_address: does not go with http.keep_alive": func(c *meshv1.Check) {
			c.Http, c.EachAddress = &meshv1.HttpProbe{KeepAlive: true}, &meshv1.EachAddress{}
		},
		"each_address: does not go with http.tls.resume_sessions": func(c *meshv1.Check) {
			c.Http, c.EachAddress = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{ResumeSessions: true}}, &meshv1.EachAddress{}
		},
		"each_address: does not go with http.proxy_url": func(c *meshv1.Check) {
			c.Http, c.EachAddress = &meshv1.HttpProbe{ProxyUrl: "http://proxy:3128"}, &meshv1.EachAddress{}
		},
	} {
		list := spec.ValidateCheck(check(change), "")
		switch {
		case want == "" && len(list) > 0:
			t.Errorf("%v", list)
		case want != "" && (len(list) != 1 || !strings.HasPrefix(fmt.Sprint(list[0]), want)):
			t.Errorf("got %v, want %s", list, want)
		}
	}
	if e := spec.Effective(check(func(c *meshv1.Check) { c.EachAddress = &meshv1.EachAddress{} }), 1).EachAddress; e.MaxAddresses != 8 || e.MinHealthy != 0 {
		t.Errorf("defaults %v", e)
	}
}
