package probe_test

import (
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/prober/probe"
)

func newFence(t testing.TB, allow, deny, sockets string) *probe.Fence {
	t.Helper()
	list := func(s string) []string {
		if s == "" {
			return nil
		}
		return strings.Split(s, " ")
	}
	f, err := probe.NewFence(list(allow), list(deny), list(sockets))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAFencePermitsWhatIsAllowedAndNotDenied(t *testing.T) {
	for _, c := range []struct{ allow, deny, permitted, refused string }{
		{"", "", "127.0.0.1 ::1 169.254.169.254 fe80::1%eth0", ""},
		{"", "none", "127.0.0.1 ::1", ""},
		{"", strings.Join(probe.DenyNetworksDefault(), " "), "127.0.0.1 10.0.0.1 ::1 fd00::1 169.254.1.1 fe80::1%eth0",
			"169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 169.254.170.2 fd00:ec2::254 fd20:ce::254 168.63.129.16 100.100.100.200"},
		{"10.1.2.3/8 2001:db8::/32", "10.9.0.0/16", "10.1.2.3 ::ffff:10.1.2.3 2001:db8::1%eth0", "10.9.1.1 11.0.0.1 ::1 127.0.0.1"},
		{"64:ff9b::/96 192.0.2.0/24", "", "64:ff9b::c000:201", "64:ff9b::a00:1 10.0.0.1"},
		{"", "127.0.0.0/8 ::1", "10.0.0.1", "127.0.0.1 127.9.9.9 0.0.0.0 :: ::1 ::ffff:127.0.0.1"}, // Linux connects to itself at 0.0.0.0
	} {
		f := newFence(t, c.allow, c.deny, "")
		for _, a := range strings.Fields(c.permitted) {
			if err := f.Permits(netip.MustParseAddr(a)); err != nil {
				t.Errorf("allow %q deny %q: %s: %v", c.allow, c.deny, a, err)
			}
		}
		for _, a := range strings.Fields(c.refused) {
			err := f.Permits(netip.MustParseAddr(a))
			if err == nil || !strings.Contains(err.Error(), "-networks") || !strings.Contains(err.Error(), a) {
				t.Errorf("allow %q deny %q: %s: %v", c.allow, c.deny, a, err)
			}
			if f.Control("tcp", net.JoinHostPort(a, "80"), nil) == nil {
				t.Errorf("allow %q deny %q: a dialer gets through to %s", c.allow, c.deny, a)
			}
		}
	}
	var open *probe.Fence
	if open.Permits(netip.MustParseAddr("169.254.169.254")) != nil || open.PermitsSocket("/run/docker.sock") != nil || open.Control("tcp", "1.2.3.4:5", nil) != nil {
		t.Error("the nil fence is not open")
	}
}

func TestAFencePermitsTheSocketsThatItNames(t *testing.T) {
	for _, c := range []struct{ sockets, permitted, refused string }{
		{"", "", "/run/docker.sock"},
		{"none", "", "/run/docker.sock"},
		{"/", "/run/docker.sock /a", "/run/../a"},
		{"/run/app.sock /run/php/*.sock", "/run/app.sock /run/php/a.sock", "/run/docker.sock /run/php/x/a.sock /run/php/../docker.sock /run/app.sockx"},
		{"/run/*/x.sock /srv/", "/run/a/x.sock /srv/a/b", "/run/../x.sock /srv/../run/docker.sock /srv /srvx"},
	} {
		f := newFence(t, "", "", c.sockets)
		for _, p := range strings.Fields(c.permitted) {
			if err := f.PermitsSocket(p); err != nil {
				t.Errorf("%q: %v", c.sockets, err)
			}
		}
		for _, p := range strings.Fields(c.refused) {
			if err := f.PermitsSocket(p); err == nil || !strings.Contains(err.Error(), "--unix-sockets") || f.Control("unix", p, nil) == nil {
				t.Errorf("%q: %s: %v", c.sockets, p, err)
			}
		}
	}
}

func TestAListThatIsNotRightIsRefusedWithWhatWouldBe(t *testing.T) {
	for _, c := range []struct{ allow, deny, sockets, want string }{
		{"10.0.0.0/33", "", "", "10.0.0.0/8"}, {"", "example.com", "", "192.0.2.7"}, {"", "fe80::1%eth0", "", "192.0.2.7"}, {"", "10.0.0.0/8 none", "", `"none"`},
		{"::ffff:10.0.0.0/104", "", "", "10.0.0.0/8"}, {"", "", "app.sock", "/run/app.sock"}, {"", "", "/run/[", "/run/app.sock"},
	} {
		_, err := probe.NewFence(strings.Fields(c.allow), strings.Fields(c.deny), strings.Fields(c.sockets))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v", c, err)
		}
	}
}

// A list replaces the default one, so the one that the documentation recommends must have all that the default has.
func TestTheRecommendedListDeniesWhatTheDefaultDenies(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("`--deny-networks ([^`]+)`").FindSubmatch(text)
	if found == nil {
		t.Fatal("docs/operations.md recommends none")
	}
	f := newFence(t, "", strings.ReplaceAll(string(found[1]), ",", " "), "")
	for _, d := range probe.DenyNetworksDefault() {
		first, _, _ := strings.Cut(d, "/")
		if f.Permits(netip.MustParseAddr(first)) == nil {
			t.Errorf("%s is permitted again", d)
		}
	}
}
