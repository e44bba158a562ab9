package credibility

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fleet is a book with probers in datacenters, and its clock.
type fleet struct {
	*Book
	t   *testing.T
	now time.Time
	rng *rand.Rand
	all []string
	// share is how often each prober dissents, base that of those that are not in it.
	share map[string]float64
	base  float64
	// hosts is how many subjects there are.
	hosts   int
	changes []Change
	// accept: what is found is carried out, as the leader does.
	accept bool
}

// newFleet has two probers in each of n datacenters: even datacenters at provider x, odd ones at y; the second of each runs build 2.
func newFleet(t *testing.T, seed uint64, datacenters int) *fleet {
	f := &fleet{Book: New(Config{}), t: t, now: start, rng: rand.New(rand.NewPCG(seed, 1)), share: map[string]float64{}, base: 0.0005, hosts: 50, accept: true}
	for d := range datacenters {
		for p := range 2 {
			name := fmt.Sprintf("dc%d-%d", d, p+1)
			f.Put(name, fmt.Sprint("dc", d), map[string]string{
				"datacenter": fmt.Sprint("dc", d), "provider": string(rune('x' + d%2)), "build": fmt.Sprint(p + 1),
			})
			f.all = append(f.all, name)
		}
	}
	return f
}

// run lets time pass: each prober has ten observations a second.
func (f *fleet) run(d time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(time.Second)
		for _, p := range f.all {
			share, ok := f.share[p]
			if !ok {
				share = f.base
			}
			for range 10 {
				if f.rng.Float64() >= share {
					f.Agree(p)
					continue
				}
				host := f.rng.IntN(f.hosts)
				f.Dissent(f.now, Dissent{Prober: p, Check: fmt.Sprint("checks/c", host), Subject: fmt.Sprint("host", host), Kind: "http", Failed: true})
			}
		}
		for _, c := range f.Judge(f.now) {
			f.changes = append(f.changes, c)
			if !f.accept {
				continue
			}
			if c.Return {
				f.Restore(f.now, c.Finding.Domain)
			} else {
				f.SetAside(c.Finding.Domain, f.now)
			}
		}
	}
}

func (f *fleet) found() (list []string) {
	for _, c := range f.changes {
		verb := "aside "
		if c.Return {
			verb = "back "
		}
		list = append(list, verb+c.Finding.Domain.String())
	}
	return list
}

func (f *fleet) want(list ...string) {
	f.t.Helper()
	if got := f.found(); !slices.Equal(got, list) {
		f.t.Fatalf("found %q, want %q", got, list)
	}
}

func TestSoundProbersAreNeverSetAside(t *testing.T) {
	f := newFleet(t, 1, 6)
	f.base = 0.005 // the worst that is still sound
	f.run(3 * time.Hour)
	f.want()
}

func TestOneSickProberIsSetAsideAloneAndComesBackWhenItAgreesAgain(t *testing.T) {
	for _, share := range []float64{0.15, 0.5, 1} {
		f := newFleet(t, 2, 6)
		f.run(10 * time.Minute)
		f.share["dc3-2"] = share
		f.run(time.Minute)
		f.want("aside prober=dc3-2")
		if d, away := f.Aside("dc3-2"); !away || d.String() != "prober=dc3-2" {
			t.Fatalf("%s, %v", d, away)
		}
		if _, away := f.Aside("dc3-1"); away {
			t.Fatal("its neighbour is set aside too")
		}
		f.run(time.Hour)
		f.want("aside prober=dc3-2")
		delete(f.share, "dc3-2")
		f.run(time.Minute)
		f.want("aside prober=dc3-2", "back prober=dc3-2")
	}
}

func TestDomainThatDissentsTogetherIsNamed(t *testing.T) {
	for _, c := range []struct {
		sick []string
		want string
	}{
		{[]string{"dc2-1", "dc2-2"}, "aside datacenter=dc2"},
		{[]string{"dc0-1", "dc0-2", "dc2-1", "dc2-2", "dc4-1", "dc4-2", "dc6-1", "dc6-2"}, "aside provider=x"},
		{[]string{"dc0-2", "dc1-2", "dc2-2", "dc3-2", "dc4-2", "dc5-2", "dc6-2", "dc7-2"}, "aside build=2"},
	} {
		f := newFleet(t, 3, 8)
		for _, p := range c.sick {
			f.share[p] = 0.15
		}
		// One of them may be over the line a moment before its fellows; nothing else is touched.
		f.run(2 * time.Minute)
		if got := f.found(); !slices.Contains(got, c.want) && len(c.sick) > 2 {
			t.Errorf("found %q, want %q", got, c.want)
		}
		for _, p := range f.all {
			if _, away := f.Aside(p); away && !slices.Contains(c.sick, p) {
				t.Errorf("%s is sound and set aside, after %q", p, f.found())
			}
		}
	}
}

func TestProberThatOneTargetTreatsDifferentlyIsNotSick(t *testing.T) {
	f := newFleet(t, 4, 6)
	for range 3600 {
		f.now = f.now.Add(time.Second)
		for host := range 2 {
			f.Dissent(f.now, Dissent{Prober: "dc1-1", Check: fmt.Sprint("checks/c", host), Subject: fmt.Sprint("host", host), Kind: "http", Failed: true})
		}
		f.changes = append(f.changes, f.Judge(f.now)...)
	}
	f.want()
}

func TestBurstOfDissentIsNoSickness(t *testing.T) {
	f := newFleet(t, 8, 6)
	f.run(time.Minute)
	f.share["dc1-1"], f.share["dc1-2"] = 1, 1
	f.run(10 * time.Second)
	delete(f.share, "dc1-1")
	delete(f.share, "dc1-2")
	f.run(10 * time.Minute)
	f.want()
}

func TestWhenEverythingLooksSickNothingIsSetAside(t *testing.T) {
	f := newFleet(t, 5, 4)
	for _, p := range f.all {
		f.share[p] = 0.3
	}
	f.run(10 * time.Minute)
	n := 0
	for _, p := range f.all {
		if _, away := f.Aside(p); away {
			n++
		}
	}
	// One prober, and one domain.
	if n > 1+len(f.all)/2 || len(f.Suspects()) == 0 || f.Suspects()[0].Limited == "" {
		t.Fatalf("%d of %d set aside (%q), suspects %+v", n, len(f.all), f.found(), f.Suspects())
	}
}

func TestReturnTakesLongerEachTime(t *testing.T) {
	f := newFleet(t, 6, 6)
	var away []time.Duration
	for range 4 {
		f.share["dc3-2"] = 1
		f.run(20 * time.Second)
		delete(f.share, "dc3-2")
		begun := f.now
		for len(f.changes)%2 == 1 && f.now.Sub(begun) < 3*time.Hour {
			f.run(time.Second)
		}
		away = append(away, f.now.Sub(begun).Round(time.Minute))
	}
	if want := []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute}; !slices.Equal(away, want) {
		t.Fatalf("away for %v, want %v; %q", away, want, f.found())
	}
}

func TestForgottenDomainDoesNotStayAside(t *testing.T) {
	f := newFleet(t, 7, 6)
	f.SetAside(Domain{"build", "9"}, f.now)
	f.run(time.Second)
	f.want("back build=9")
}

// The figures of the package doc.
func TestDetectionTakesAsManyObservationsAsTheDocumentationSays(t *testing.T) {
	for share, most := range map[float64]int{1: 7, 0.15: 75} {
		total := 0
		for seed := range uint64(200) {
			b := New(Config{})
			for i := range 6 {
				b.Put(fmt.Sprint("p", i), fmt.Sprint("dc", i), nil)
			}
			rng := rand.New(rand.NewPCG(seed, 9))
			n, now := 0, start
			for found := false; !found; n++ {
				now = now.Add(3 * time.Second)
				if host := rng.IntN(1000); rng.Float64() < share {
					b.Dissent(now, Dissent{Prober: "p0", Check: fmt.Sprint(host), Subject: fmt.Sprint(host), Kind: "http"})
				} else {
					b.Agree("p0")
				}
				found = len(b.Judge(now)) > 0
			}
			total += n
		}
		t.Logf("dissent %.2f: found after %d observations on average", share, total/200)
		if total/200 > most {
			t.Errorf("dissent %.2f: found after %d observations, want at most %d", share, total/200, most)
		}
	}
}

func BenchmarkAgree(b *testing.B) {
	book := New(Config{})
	for i := range 100 {
		book.Put(fmt.Sprint("p", i), fmt.Sprint("dc", i%10), map[string]string{"provider": fmt.Sprint(i % 3), "build": "1"})
	}
	for b.Loop() {
		book.Agree("p42")
	}
}

func BenchmarkJudge(b *testing.B) {
	book := New(Config{})
	for i := range 1000 {
		book.Put(fmt.Sprint("p", i), fmt.Sprint("dc", i%50), map[string]string{"provider": fmt.Sprint(i % 5), "build": "1"})
	}
	now := start
	for b.Loop() {
		now = now.Add(time.Second)
		book.Judge(now)
	}
}
