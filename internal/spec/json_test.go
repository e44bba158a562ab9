package spec_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestExpectationsOnJSONThatIsNeverThereAreRefused(t *testing.T) {
	for expr, refused := range map[string]bool{"response.json.ok": true, `response.body.contains("ok")`: false} {
		for uri, set := range map[string]func(*meshv1.Check){
			"tcp://x:1": func(c *meshv1.Check) { c.Tcp = &meshv1.TcpProbe{Expect: []string{expr}} },
			"udp://x:1": func(c *meshv1.Check) { c.Udp = &meshv1.UdpProbe{Send: "x", Expect: []string{expr}} },
		} {
			c := &meshv1.Check{Name: "checks/a", Uri: uri, Interval: durationpb.New(time.Minute)}
			set(c)
			said := ""
			for _, v := range spec.ValidateCheck(c, "") {
				said += v.String() + "\n"
			}
			if got := strings.Contains(said, "reads response.json, which is never set"); got != refused {
				t.Errorf("%s with %s: refused %t, want %t: %s", uri, expr, got, refused, said)
			}
		}
	}
}
