package spec_test

import (
	"bytes"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// options are the fields of the messages of all kinds, those within them included.
func options(m protoreflect.MessageDescriptor, seen map[string]bool) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(m.Name()) + "." + string(f.Name())
		if seen[name] {
			continue
		}
		seen[name] = true
		if child := f.Message(); child != nil && !f.IsMap() && strings.HasPrefix(string(child.FullName()), "probemesh.") {
			options(child, seen)
		}
	}
}

// testdata/options.txt lists the options that probers have had since capabilities are announced for options. It does not grow: what comes now is a capability.
func TestEveryNewOptionIsACapability(t *testing.T) {
	seen := make(map[string]bool)
	fields := (&meshv1.Check{}).ProtoReflect().Descriptor().Fields()
	for _, kind := range []string{"http", "tcp", "tls", "dns", "icmp", "grpc", "udp", "websocket", "each_address", "fail_above"} {
		options(fields.ByName(protoreflect.Name(kind)).Message(), seen)
	}
	text, err := os.ReadFile("testdata/options.txt")
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Fields(string(bytes.TrimSpace(text)))
	var all []string
	for name := range seen {
		all = append(all, name)
	}
	sort.Strings(all)
	for _, name := range all {
		if !slices.Contains(old, name) && !slices.Contains(spec.OptionCapabilities(), name) {
			t.Errorf("%s is a new option; add it to spec.OptionCapabilities, so that no prober is given a check with it that does not know it", name)
		}
	}
	for _, name := range spec.OptionCapabilities() {
		if !seen[name] {
			t.Errorf("%s is not an option of any kind", name)
		}
		if slices.Contains(old, name) {
			t.Errorf("%s is in testdata/options.txt too; every prober has what is there", name)
		}
	}
}

func TestACheckNeedsTheNewOptionsThatItHas(t *testing.T) {
	for want, c := range map[string]*meshv1.Check{
		"":                                   {Uri: "http://a", Http: &meshv1.HttpProbe{Body: "x", Oauth2: &meshv1.OAuth2ClientCredentials{ClientId: "a"}}},
		"HttpProbe.send_body_to_other_hosts": {Uri: "http://a", Http: &meshv1.HttpProbe{SendBodyToOtherHosts: true}},
		"HttpProbe.send_body_to_other_hosts OAuth2ClientCredentials.without_proxy": {Uri: "http://a", Http: &meshv1.HttpProbe{SendBodyToOtherHosts: true,
			Oauth2: &meshv1.OAuth2ClientCredentials{WithoutProxy: true}}},
	} {
		if got := strings.Join(spec.OptionNeeds(c), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
