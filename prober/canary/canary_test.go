package canary

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// world is a network: what happens to a connection by address.
type world struct {
	mu    sync.Mutex
	fate  map[string]string // address: ok (default), refused, silent, unreachable
	dials int
	names map[string][]string
}

func (w *world) set(address, fate string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fate[address] = fate
}

func (w *world) dial(ctx context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dials++
	fate := w.fate[address]
	w.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	switch fate {
	case "refused":
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case "unreachable":
		return nil, &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}
	case "silent":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a, b := net.Pipe()
	b.Close()
	return a, nil
}

func (w *world) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []netip.Addr
	for _, a := range w.names[host] {
		list = append(list, netip.MustParseAddr(a))
	}
	if list == nil {
		return nil, errors.New("no such host")
	}
	return list, nil
}

// bubble runs a test with canaries that have had their first round.
func bubble(t *testing.T, named, servers []string, test func(*world, *Canary)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{fate: map[string]string{}, names: map[string][]string{"a.example.com": {"192.0.2.1", "2001:db8::1"}, "b.example.com": {"192.0.2.2"}}}
		c := New(Config{Named: named, Servers: func() []string { return servers }, Dial: w.dial, Lookup: w.lookup,
			Own: func(a netip.Addr) bool { return a.IsLoopback() }}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _ = c.Run(ctx) })
		time.Sleep(time.Second)
		test(w, c)
		cancel()
		group.Wait()
	})
}

var (
	elsewhere  = netip.MustParseAddr("198.51.100.9")
	elsewhere6 = netip.MustParseAddr("2001:db8:9::9")
)

func TestFailureIsTheTargetsWhileACanaryAnswersAndThatIsSaidAtOnce(t *testing.T) {
	bubble(t, nil, []string{"a.example.com:7700", "b.example.com:7700"}, func(w *world, c *Canary) {
		w.set("192.0.2.1:7700", "silent")
		time.Sleep(Every)
		begin := time.Now()
		if why, own := c.Excuse(context.Background(), elsewhere, begin); own {
			t.Errorf("excused: %s", why)
		}
		if d := time.Since(begin); d > 30*time.Millisecond {
			t.Errorf("it took %s", d)
		}
	})
}

func TestRefusedConnectionShowsThatTheNetworkWorks(t *testing.T) {
	bubble(t, nil, []string{"a.example.com:7700"}, func(w *world, c *Canary) {
		w.set("192.0.2.1:7700", "refused")
		time.Sleep(2 * Every)
		if _, own := c.Excuse(context.Background(), elsewhere, time.Now()); own || c.States()[0].Failing {
			t.Errorf("%+v", c.States())
		}
	})
}

func TestOneFamilyFailsAlone(t *testing.T) {
	bubble(t, nil, []string{"a.example.com:7700", "b.example.com:7700"}, func(w *world, c *Canary) {
		w.set("[2001:db8::1]:7700", "unreachable")
		begin := time.Now()
		why, own := c.Excuse(context.Background(), elsewhere6, begin)
		if !own || why != "own network: no canary answers over IPv6 (a.example.com:7700)" {
			t.Errorf("%t %q", own, why)
		}
		if d := time.Since(begin); d > RoundMax+50*time.Millisecond {
			t.Errorf("it took %s", d)
		}
		if _, own := c.Excuse(context.Background(), elsewhere, time.Now()); own {
			t.Error("IPv4 is excused for IPv6")
		}
		if _, own := c.Excuse(context.Background(), netip.Addr{}, time.Now()); own {
			t.Error("a failure of no family is excused though IPv4 works")
		}
		time.Sleep(2 * Every)
		s := c.States()
		if len(s) != 2 || s[0].Failing || !s[1].Failing || s[1].Excused != 1 || !strings.Contains(s[1].Error, "no route") {
			t.Errorf("%+v", s)
		}
		w.set("[2001:db8::1]:7700", "ok")
		time.Sleep(2 * Every)
		if _, own := c.Excuse(context.Background(), elsewhere6, time.Now()); own || c.States()[1].Failing {
			t.Errorf("%+v after it came back", c.States())
		}
	})
}

func TestFailureDuringWhichTheCanariesWereSilentIsExcusedAfterwards(t *testing.T) {
	bubble(t, nil, []string{"a.example.com:7700", "b.example.com:7700"}, func(w *world, c *Canary) {
		for _, a := range []string{"192.0.2.1:7700", "192.0.2.2:7700", "[2001:db8::1]:7700"} {
			w.set(a, "silent")
		}
		began := time.Now()
		time.Sleep(Every + RoundMax)
		if why, own := c.Excuse(context.Background(), netip.Addr{}, began); !own {
			t.Errorf("%q", why)
		}
	})
}

func TestTargetOnTheHostOfACanaryIsNotExcusedByItsOwnDeath(t *testing.T) {
	bubble(t, nil, []string{"b.example.com:7700"}, func(w *world, c *Canary) {
		w.set("192.0.2.2:7700", "silent")
		time.Sleep(2 * Every)
		if why, own := c.Excuse(context.Background(), netip.MustParseAddr("192.0.2.2"), time.Now()); own {
			t.Error(why)
		}
	})
	bubble(t, nil, []string{"a.example.com:7700", "b.example.com:7700"}, func(w *world, c *Canary) {
		w.set("192.0.2.1:7700", "silent")
		if _, own := c.Excuse(context.Background(), netip.MustParseAddr("192.0.2.2"), time.Now()); !own {
			t.Error("the canary at the target's address vouched for the network")
		}
	})
}

func TestDeathOfTheOnlyServerExcusesNothingWhileOtherTargetsAnswer(t *testing.T) {
	bubble(t, nil, []string{"b.example.com:7700"}, func(w *world, c *Canary) {
		w.set("192.0.2.2:7700", "silent")
		time.Sleep(2 * Every)
		began := time.Now()
		c.Heard(netip.MustParseAddr("198.51.100.1"))
		if why, own := c.Excuse(context.Background(), elsewhere, began); own {
			t.Error(why)
		}
		time.Sleep(time.Second)
		if _, own := c.Excuse(context.Background(), elsewhere, time.Now()); !own {
			t.Error("nothing else has answered since")
		}
	})
}

func TestCanaryThatNeverAnsweredSaysNothingUnlessItWasNamed(t *testing.T) {
	for _, named := range []bool{false, true} {
		list := []string{"203.0.113.1:53"}
		a, b := list, []string(nil)
		if !named {
			a, b = b, a
		}
		synctest.Test(t, func(t *testing.T) {
			w := &world{fate: map[string]string{"203.0.113.1:53": "silent"}}
			c := New(Config{Named: a, Servers: func() []string { return b }, Dial: w.dial, Lookup: w.lookup}, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			group.Go(func() { _ = c.Run(ctx) })
			time.Sleep(2 * Every)
			if _, own := c.Excuse(ctx, elsewhere, time.Now()); own != named {
				t.Errorf("named %t: excused %t", named, own)
			}
			cancel()
			group.Wait()
		})
	}
}

func TestAddressesOfThisMachineAreNoCanariesUnlessNamed(t *testing.T) {
	bubble(t, nil, []string{"127.0.0.1:7700"}, func(_ *world, c *Canary) {
		if s := c.States(); len(s) != 0 {
			t.Errorf("%+v", s)
		}
		if _, own := c.Excuse(context.Background(), elsewhere, time.Now()); own {
			t.Error("excused without a canary")
		}
	})
	bubble(t, []string{"127.0.0.1:53"}, nil, func(_ *world, c *Canary) {
		if s := c.States(); len(s) != 1 || s[0].Answering != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAddressesStayWhileNamesCannotBeResolved(t *testing.T) {
	bubble(t, nil, []string{"b.example.com:7700"}, func(w *world, c *Canary) {
		w.mu.Lock()
		w.names = nil
		w.mu.Unlock()
		time.Sleep(3 * time.Minute)
		if s := c.States(); len(s) != 1 || s[0].Targets != 1 || s[0].Answering != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestManyFailuresShareRounds(t *testing.T) {
	bubble(t, nil, []string{"a.example.com:7700", "b.example.com:7700"}, func(w *world, c *Canary) {
		dials := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.dials
		}
		before := dials()
		var group sync.WaitGroup
		for range 5000 {
			group.Go(func() {
				if why, own := c.Excuse(context.Background(), elsewhere, time.Now()); own {
					t.Error(why)
				}
			})
		}
		group.Wait()
		if n := dials() - before; n > 6 {
			t.Errorf("%d connections for 5000 failures", n)
		}
	})
}

func TestNoCanaryIsNil(t *testing.T) {
	var c *Canary
	c.Heard(elsewhere)
	if _, own := c.Excuse(context.Background(), elsewhere, time.Now()); own || c.States() != nil {
		t.Error("a nil canary speaks")
	}
}
