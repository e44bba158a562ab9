package grouping

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// many are checks "prefix-0" and so on of as many hosts, with the further values.
func many(prefix string, n int, has ...string) []Check {
	var list []Check
	for i := range n {
		c := Check{Name: fmt.Sprintf("%s-%d", prefix, i), Subject: fmt.Sprintf("%s%d.example.com", prefix, i)}
		for _, h := range has {
			d, v, _ := strings.Cut(h, "=")
			c.Has = append(c.Has, Value{d, v})
		}
		list = append(list, c)
	}
	return list
}

func extents(pairs ...any) map[Value]Extent {
	m := map[Value]Extent{}
	for i := 0; i < len(pairs); i += 3 {
		d, v, _ := strings.Cut(pairs[i].(string), "=")
		m[Value{d, v}] = Extent{All: pairs[i+1].(int), Answering: pairs[i+2].(int)}
	}
	return m
}

func told(causes []Cause, alone []string) string {
	var parts []string
	for _, c := range causes {
		also := ""
		if len(c.Also) > 0 {
			also = fmt.Sprint(" also ", c.Also)
		}
		parts = append(parts, fmt.Sprintf("%s %s: %d of %d%s", c.Side, c.Value, len(c.Checks), c.Extent.All, also))
	}
	return strings.Join(append(parts, fmt.Sprintf("alone: %d", len(alone))), "; ")
}

func TestTargetsAreExplainedByTheNarrowestValueThatCoversThem(t *testing.T) {
	join := func(lists ...[]Check) []Check { return slices.Concat(lists...) }
	for _, x := range []struct {
		name   string
		checks []Check
		ext    map[Value]Extent
		want   string
	}{
		{"four are too few", many("a", 4, "host=h"), extents("host=h", 4, 0), "alone: 4"},
		{"five are enough", many("a", 5, "host=h"), extents("host=h", 200, 0), "targets host=h: 5 of 200; alone: 0"},
		{"four of five of what was seen turned", many("a", 8, "host=h"), extents("host=h", 50, 2), "targets host=h: 8 of 50; alone: 0"},
		{"too many of the host answer", many("a", 8, "host=h"), extents("host=h", 50, 3), "alone: 8"},
		{"the host before the label that all checks have", many("a", 20, "host=h", "label.env=prod"), extents("host=h", 20, 0, "label.env=prod", 900, 2), "targets host=h: 20 of 20; alone: 0"},
		{"a label that explains nearly nothing more does not win", join(many("a", 200, "host=h", "label.env=prod"), many("b", 5, "label.env=prod")),
			extents("host=h", 200, 0, "label.env=prod", 900, 10), "targets host=h: 200 of 200; alone: 5"},
		{"a rack of two hosts is one cause", join(many("a", 20, "host=h", "label.rack=1"), many("b", 30, "host=i", "label.rack=1")),
			extents("host=h", 20, 0, "host=i", 30, 0, "label.rack=1", 50, 0), "targets label.rack=1: 50 of 50; alone: 0"},
		{"two hosts are two causes", join(many("a", 20, "host=h"), many("b", 30, "host=i"), many("c", 3)), extents("host=h", 20, 0, "host=i", 30, 0),
			"targets host=i: 30 of 30; targets host=h: 20 of 20; alone: 3"},
		{"an address and its network, of which nothing else is known", many("a", 9, "address=192.0.2.7", "network=192.0.2.0/24"),
			extents("address=192.0.2.7", 9, 0, "network=192.0.2.0/24", 9, 0), "targets address=192.0.2.7: 9 of 9 also [network=192.0.2.0/24]; alone: 0"},
		{"a network of many addresses", join(many("a", 6, "address=192.0.2.7", "network=192.0.2.0/24"), many("b", 6, "address=192.0.2.8", "network=192.0.2.0/24")),
			extents("address=192.0.2.7", 6, 0, "address=192.0.2.8", 6, 0, "network=192.0.2.0/24", 12, 1), "targets network=192.0.2.0/24: 12 of 12; alone: 0"},
		{"a name that all are aliases of, before the address that it has", many("a", 9, "address=192.0.2.7", "cname=edge.cdn.example"),
			extents("address=192.0.2.7", 9, 0, "cname=edge.cdn.example", 9, 0), "targets cname=edge.cdn.example: 9 of 9 also [address=192.0.2.7]; alone: 0"},
		{"the first of two that explain the same", many("a", 9, "cname=pop.cdn.example", "cname=edge.cdn.example"),
			extents("cname=edge.cdn.example", 9, 0, "cname=pop.cdn.example", 9, 0), "targets cname=pop.cdn.example: 9 of 9 also [cname=edge.cdn.example]; alone: 0"},
		{"an issuer of which nearly none answers", many("a", 40, "issuer=CN=R11"), extents("issuer=CN=R11", 200, 2), "targets issuer=CN=R11: 40 of 200; alone: 0"},
		{"an issuer of which one in twenty answers", many("a", 40, "issuer=CN=R11"), extents("issuer=CN=R11", 200, 3), "alone: 40"},
		{"an issuer of which five answer, however many do not", many("a", 400, "issuer=CN=R11"), extents("issuer=CN=R11", 800, 5), "alone: 400"},
		{"the issuer of all before the label of all", many("a", 40, "issuer=CN=R11", "label.env=prod"), extents("issuer=CN=R11", 40, 0, "label.env=prod", 40, 0),
			"targets issuer=CN=R11: 40 of 40 also [label.env=prod]; alone: 0"},
		{"nothing shared", many("a", 500), nil, "alone: 500"},
	} {
		if got := told(Explain(Burst{Checks: x.checks, Extents: x.ext})); got != x.want {
			t.Errorf("%s: %s\nwant %s", x.name, got, x.want)
		}
	}
}

func TestWhatIsClearedExplainsNothing(t *testing.T) {
	b := Burst{Checks: many("a", 40, "cname=edge.cdn.example", "label.rack=1"), Extents: extents("cname=edge.cdn.example", 90, 5, "label.rack=1", 95, 0), Cleared: map[Value]bool{{CNAME, "edge.cdn.example"}: true}}
	if got := told(Explain(b)); got != "targets label.rack=1: 40 of 95; alone: 0" {
		t.Error(got)
	}
}

// seen is a burst of checks that the probers f1, f2 and f3 of provider p see fail, and o1 and o2 of another answer.
func seen(n int) Burst {
	b := Burst{Checks: many("a", n), Probers: map[string]Prober{}}
	for i := range b.Checks {
		b.Checks[i].Failed, b.Checks[i].Answered = []string{"f1", "f2", "f3"}, []string{"o1", "o2"}
	}
	for i, p := range []string{"f1", "f2", "f3", "o1", "o2"} {
		x := Prober{Domains: []Value{{"datacenter", fmt.Sprint("d", i)}, {"provider", p[:1]}, {"build", "1.0"}}}
		if p[0] == 'f' {
			x.Failed = n
		} else {
			x.Answered = n
		}
		b.Probers[p] = x
	}
	return b
}

func TestDomainOfProbersExplainsWhatItAloneSeesFail(t *testing.T) {
	edit := func(b Burst, change func(*Burst)) Burst { change(&b); return b }
	for _, x := range []struct {
		name string
		b    Burst
		want string
	}{
		{"a provider", seen(20), "probers provider=f: 20 of 3; alone: 0"},
		{"too few checks", seen(4), "alone: 4"},
		{"its probers see others answer", edit(seen(20), func(b *Burst) {
			for n, p := range b.Probers {
				p.Answered += 6
				b.Probers[n] = p
			}
		}), "alone: 20"},
		{"one host that they cannot reach", edit(seen(20), func(b *Burst) {
			for i := range b.Checks {
				b.Checks[i].Subject = "h"
			}
		}), "alone: 20"},
		{"nobody outside", edit(seen(20), func(b *Burst) {
			for i := range b.Checks {
				b.Checks[i].Answered = nil
			}
		}), "alone: 20"},
		{"some of them fail for others too", edit(seen(20), func(b *Burst) {
			for i := range 3 {
				b.Checks[i].Failed = append(b.Checks[i].Failed, "o1")
			}
		}), "probers provider=f: 17 of 3; alone: 3"},
		{"a quarter of them fails for others too", edit(seen(20), func(b *Burst) {
			for i := range 5 {
				b.Checks[i].Failed = append(b.Checks[i].Failed, "o1")
			}
		}), "alone: 20"},
	} {
		if got := told(Explain(x.b)); got != x.want {
			t.Errorf("%s: %s\nwant %s", x.name, got, x.want)
		}
	}
}

func TestOrderDoesNotMatterAndEveryCheckIsSaidOnce(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := seen(rng.IntN(30))
		for i := range rng.IntN(60) {
			c := Check{Name: fmt.Sprint("x", i), Subject: fmt.Sprint("s", rng.IntN(9))}
			for d := range 1 + rng.IntN(3) {
				c.Has = append(c.Has, Value{fmt.Sprint("label.", d), fmt.Sprint(rng.IntN(4))})
			}
			b.Checks = append(b.Checks, c)
		}
		b.Extents = map[Value]Extent{}
		for v := range Candidates(b.Checks) {
			b.Extents[v] = Extent{All: 60, Answering: rng.IntN(6)}
		}
		causes, alone := Explain(b)
		said := slices.Clone(alone)
		for _, c := range causes {
			said = append(said, c.Checks...)
			if len(c.Checks) < Min {
				t.Fatalf("seed %d: %s explains %d checks", seed, c.Value, len(c.Checks))
			}
			if c.Side == Targets && float64(len(c.Checks)) < Share*float64(len(c.Checks)+b.Extents[c.Value].Answering) {
				t.Fatalf("seed %d: %s explains %d checks, %d answer", seed, c.Value, len(c.Checks), b.Extents[c.Value].Answering)
			}
		}
		slices.Sort(said)
		if len(slices.Compact(slices.Clone(said))) != len(said) || len(said) != len(b.Checks) {
			t.Fatalf("seed %d: of %d checks %d were said", seed, len(b.Checks), len(said))
		}
		shuffled := b
		shuffled.Checks = slices.Clone(b.Checks)
		rng.Shuffle(len(shuffled.Checks), func(i, j int) { shuffled.Checks[i], shuffled.Checks[j] = shuffled.Checks[j], shuffled.Checks[i] })
		for i := range shuffled.Checks {
			slices.Reverse(shuffled.Checks[i].Has)
		}
		again, aloneAgain := Explain(shuffled)
		if !reflect.DeepEqual(causes, again) || !slices.Equal(alone, aloneAgain) {
			t.Fatalf("seed %d: %s, shuffled %s", seed, told(causes, alone), told(again, aloneAgain))
		}
	}
}

// Failures at random of checks that share things in the usual way are no group, as long as the others of the kind are seen to answer.
func TestCoincidencesAreNoGroup(t *testing.T) {
	grouped := 0
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		all := map[Value]int{}
		var b Burst
		for i := range 1000 {
			c := Check{Name: fmt.Sprint("c", i), Has: []Value{{"host", fmt.Sprint(i / 4)}, {"network", fmt.Sprint(i / 20)}, {"label.team", fmt.Sprint(i % 7)}, {"label.env", "prod"}}}
			turned, seen := rng.IntN(1000) < 8, rng.IntN(100) < 10
			for _, v := range c.Has {
				if !turned && seen {
					all[v]++
				}
			}
			if turned {
				b.Checks = append(b.Checks, c)
			}
		}
		b.Extents = map[Value]Extent{}
		for v, n := range all {
			b.Extents[v] = Extent{All: 1000, Answering: n}
		}
		if causes, _ := Explain(b); len(causes) > 0 {
			grouped++
		}
	}
	if grouped > 0 {
		t.Errorf("of 1000 times in which about eight checks of 1000 failed by chance, they were grouped %d times", grouped)
	}
}
