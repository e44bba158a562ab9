package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, s := range list {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

func TestFamiliesTakeTurns(t *testing.T) {
	got := alternate(addrs("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"))
	want := addrs("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3")
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// raced races connections to the addresses on one port.
func raced(t *testing.T, timeout time.Duration, port uint16, list ...string) (net.Conn, *Attempt, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	a := &Attempt{start: time.Now(), timeout: timeout}
	a.Enter(meshv1.Result_CONNECT)
	conn, err := (&Dialer{}).race(ctx, a, "tcp", addrs(list...), port)
	return conn, a, err
}

func TestTheNextAddressIsTriedWhenOneFailsOrHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("this system has one loopback address only")
	}
	defer l.Close()
	_, text, _ := net.SplitHostPort(l.Addr().String())
	port, _ := strconv.Atoi(text)
	begin := time.Now()
	conn, a, err := raced(t, 5*time.Second, uint16(port), "127.0.0.1", "127.0.0.2")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if a.Remote() != l.Addr().String() {
		t.Errorf("remote is %s", a.Remote())
	}
	if d := time.Since(begin); d > fallbackDelay {
		t.Errorf("a refusal was waited out: %s", d)
	}
	_, _, err = raced(t, 5*time.Second, uint16(port), "127.0.0.1", "127.0.0.3", "127.0.0.4")
	f := Classify(err, a)
	if f.Class != meshv1.Result_CONNECTION_REFUSED || f.Sentence != "connect to 127.0.0.1:"+text+": connection refused (none of 3 addresses could be connected to)" {
		t.Errorf("got %v: %s", f.Class, f.Sentence)
	}
}

func TestALiteralAddressIsNotResolved(t *testing.T) {
	a := &Attempt{start: time.Now(), timeout: time.Second}
	got, err := (&Dialer{}).Resolve(t.Context(), a, "2001:db8::7")
	if err != nil || len(got) != 1 || a.Phase() != meshv1.Result_PHASE_UNSPECIFIED {
		t.Errorf("got %v, %v in %v", got, err, a.Phase())
	}
}

func TestANameIsResolvedInTheFamilyAskedFor(t *testing.T) {
	a := &Attempt{start: time.Now(), timeout: time.Second}
	got, err := (&Dialer{Family: meshv1.IpFamily_IPV4}).Resolve(t.Context(), a, "localhost")
	if err != nil || len(got) == 0 || a.Phase() != meshv1.Result_RESOLVE {
		t.Fatalf("got %v, %v in %v", got, err, a.Phase())
	}
	for _, addr := range got {
		if !addr.Is4() {
			t.Errorf("got %s", addr)
		}
	}
}

func TestWhatTheTargetDidComesBeforeWhatTheProberLacks(t *testing.T) {
	lacking, refused, late := won{to: "[2001:db8::1]:1", err: syscall.EACCES}, won{to: "192.0.2.1:1", err: syscall.ECONNREFUSED}, won{to: "192.0.2.2:1", err: context.DeadlineExceeded}
	for _, c := range []struct {
		failed []won
		class  meshv1.Result_ErrorClass
		remote string
	}{
		{[]won{lacking, late}, meshv1.Result_TIMEOUT, late.to},
		{[]won{lacking, late, refused}, meshv1.Result_CONNECTION_REFUSED, refused.to},
		{[]won{late, lacking}, meshv1.Result_TIMEOUT, late.to},
		{[]won{lacking, lacking}, meshv1.Result_PROBER, lacking.to},
	} {
		a := &Attempt{start: time.Now(), timeout: time.Second}
		a.Enter(meshv1.Result_CONNECT)
		f := Classify(raceFailure(a, c.failed), a)
		if f.Class != c.class || a.Remote() != c.remote {
			t.Errorf("%v: got %v of %s", c.failed, f.Class, a.Remote())
		}
	}
}
