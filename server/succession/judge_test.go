package succession

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/server/peer"
)

// base is a moment, and what server b knows at it: a leads term 7 and is heard, and so is c; a hears 5 probers, as everybody does.
func base() (time.Time, Facts) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return now, Facts{
		Self: "servers/b", Assisted: true, Leader: "servers/a", Boot: "a1", Term: 7, Since: now.Add(-time.Minute), Hears: 5,
		Peers: []peer.View{view(now, "a", 100*time.Millisecond, &peerv1.Beat{Leading: true}), view(now, "c", 100*time.Millisecond, &peerv1.Beat{})},
	}
}

func view(now time.Time, name string, silence time.Duration, b *peerv1.Beat) peer.View {
	if b != nil {
		b.Leader, b.Term, b.Hears = "servers/a", 7, 5
	}
	return peer.View{Server: "servers/" + name, BootID: name + "1", Since: now.Add(-time.Hour), Heard: now.Add(-silence), Beat: b}
}

func missesA(silence time.Duration, refused bool) *peerv1.Beat {
	return &peerv1.Beat{Missed: []*peerv1.Missed{{Server: "servers/a", BootId: "a1", Silence: durationpb.New(silence), Refused: refused}}}
}

// with changes the facts.
func with(f Facts, change func(now time.Time, f *Facts), now time.Time) Facts {
	change(now, &f)
	return f
}

func silent(d time.Duration) func(time.Time, *Facts) {
	return func(now time.Time, f *Facts) { f.Peers[0].Heard = now.Add(-d) }
}

func TestJudgeOfALeader(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(now time.Time, f *Facts)
		act    Act
		cause  Cause
	}{
		{"all is well", func(time.Time, *Facts) {}, Nothing, ""},
		{"silent, and nobody says the same", silent(2 * time.Second), Nothing, ""},
		{"silent, and another says the same", func(now time.Time, f *Facts) {
			silent(700*time.Millisecond)(now, f)
			f.Peers[1] = view(now, "c", 0, missesA(650*time.Millisecond, false))
		}, Evict, Silent},
		{"another says that it is silent, this server hears it", func(now time.Time, f *Facts) {
			f.Peers[1] = view(now, "c", 0, missesA(time.Minute, true))
		}, Nothing, ""},
		{"the other one speaks of a former process", func(now time.Time, f *Facts) {
			silent(time.Second)(now, f)
			b := missesA(time.Second, false)
			b.Missed[0].BootId = "a0"
			f.Peers[1] = view(now, "c", 0, b)
		}, Nothing, ""},
		{"the other one's word is old", func(now time.Time, f *Facts) {
			silent(2*time.Second)(now, f)
			f.Peers[1] = view(now, "c", time.Second, missesA(time.Second, false))
		}, Nothing, ""},
		{"gone on both", func(now time.Time, f *Facts) {
			silent(260*time.Millisecond)(now, f)
			f.Peers[0].Refused = true
			f.Peers[1] = view(now, "c", 0, missesA(200*time.Millisecond, true))
		}, Evict, Gone},
		{"refused a moment after a beat", func(now time.Time, f *Facts) {
			silent(100*time.Millisecond)(now, f)
			f.Peers[0].Refused = true
			f.Peers[1] = view(now, "c", 0, missesA(200*time.Millisecond, true))
		}, Nothing, ""},
		{"a newer process of it is heard", func(_ time.Time, f *Facts) { f.Peers[0].BootID = "a2" }, Evict, Replaced},
		{"its disk hangs", func(_ time.Time, f *Facts) { f.Peers[0].Beat.DiskStall = durationpb.New(StallAfter) }, Evict, Stalled},
		{"its disk is slow", func(_ time.Time, f *Facts) { f.Peers[0].Beat.DiskStall = durationpb.New(time.Second) }, Nothing, ""},
		{"its writes hang", func(_ time.Time, f *Facts) { f.Peers[0].Beat.Uncommitted = durationpb.New(stallMost) }, Evict, Stalled},
		{"its writes are slow, and it bears that", func(_ time.Time, f *Facts) { f.Peers[0].Beat.Uncommitted = durationpb.New(2 * time.Second) }, Nothing, ""},
		{"its writes are slow, and it has ended its reign", func(_ time.Time, f *Facts) {
			f.Peers[0].Beat.Uncommitted, f.Peers[0].Beat.Leading = durationpb.New(StallAfter), false
		}, Evict, Stalled},
		{"it has just ended its reign", func(_ time.Time, f *Facts) { f.Peers[0].Beat.Leading = false }, Nothing, ""},
		{"it ended its reign long ago", func(now time.Time, f *Facts) {
			f.Peers[0].Beat.Leading = false
			f.Memory = Memory{Term: 7, Disowned: now.Add(-DisownAfter)}
		}, Evict, Disowned},
		{"it does not know yet that it leads", func(now time.Time, f *Facts) {
			f.Peers[0].Beat.Leading, f.Peers[0].Beat.Term = false, 6
			f.Memory = Memory{Term: 7, Disowned: now.Add(-time.Minute)}
		}, Nothing, ""},
		{"it has been stopping for long", func(now time.Time, f *Facts) {
			f.Peers[0].Beat.Leading, f.Peers[0].Beat.StopTime = false, timestamppb.New(now)
			f.Memory = Memory{Term: 7, Disowned: now.Add(-DisownAfter)}
		}, Evict, Withdrawn},
		{"never heard, for two seconds", func(now time.Time, f *Facts) {
			f.Peers[0] = peer.View{Server: "servers/a", Since: now.Add(-2 * time.Second)}
			f.Peers[1] = view(now, "c", 0, missesA(2*time.Second, false))
		}, Nothing, ""},
		{"never heard, for longer", func(now time.Time, f *Facts) {
			f.Peers[0] = peer.View{Server: "servers/a", Since: now.Add(-StrangerAfter)}
			f.Peers[1] = view(now, "c", 0, missesA(time.Second, false))
		}, Evict, Silent},
		{"of two, silent", func(now time.Time, f *Facts) {
			silent(LonelyAfter)(now, f)
			f.Peers = f.Peers[:1]
		}, Read, Silent},
		{"of two, silent, and etcd was read before that", func(now time.Time, f *Facts) {
			silent(2*time.Second)(now, f)
			f.Peers, f.Read = f.Peers[:1], now.Add(-1500*time.Millisecond)
		}, Read, Silent},
		{"of two, silent, and etcd was read since", func(now time.Time, f *Facts) {
			silent(2*time.Second)(now, f)
			f.Peers, f.Read = f.Peers[:1], now.Add(-100*time.Millisecond)
		}, Evict, Silent},
		{"nobody leads", func(_ time.Time, f *Facts) { f.Leader, f.Term = "", 0 }, Nothing, ""},
		{"not assisted", func(_ time.Time, f *Facts) { f.Assisted, f.Peers[0].BootID = false, "a2" }, Nothing, ""},
		{"this server stops", func(_ time.Time, f *Facts) { f.Stopping, f.Peers[0].BootID = true, "a2" }, Nothing, ""},
		{"the leader's record is gone", func(_ time.Time, f *Facts) { f.Peers = f.Peers[1:] }, Nothing, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, f := base()
			d := Judge(now, with(f, c.change, now))
			if d.Act != c.act || d.Cause != c.cause || d.Term != d.Memory.Term {
				t.Errorf("%+v, want act %d for %q", d, c.act, c.cause)
			}
		})
	}
}

func TestJudgeOfALeaderOnItself(t *testing.T) {
	hears := func(own, other int) func(time.Time, *Facts) {
		return func(_ time.Time, f *Facts) {
			f.Hears, f.Peers[0].Beat.Hears, f.Peers[1].Beat.Hears = own, 0, int32(other)
		}
	}
	for _, c := range []struct {
		name   string
		change func(now time.Time, f *Facts)
		deaf   time.Duration // since when
		act    Act
		cause  Cause
	}{
		{"all is well", hears(5, 5), 0, Nothing, ""},
		{"half is enough", hears(2, 4), time.Hour, Nothing, ""},
		{"deaf for a moment", hears(1, 3), time.Second, Nothing, ""},
		{"deaf for three seconds", hears(1, 3), deafAfter, Resign, Deaf},
		{"a peer that hears two proves nothing", hears(0, 2), time.Hour, Nothing, ""},
		{"deaf, and the reign is young", func(now time.Time, f *Facts) { hears(0, 9)(now, f); f.Since = now.Add(-4 * time.Second) }, time.Hour, Nothing, ""},
		{"the peer that hears more has been silent", func(now time.Time, f *Facts) { hears(0, 9)(now, f); f.Peers[1].Heard = now.Add(-time.Second) }, time.Hour, Nothing, ""},
		{"the peer that hears more is stopping", func(now time.Time, f *Facts) { hears(0, 9)(now, f); f.Peers[1].Beat.StopTime = timestamppb.New(now) }, time.Hour, Nothing, ""},
		{"the disk hangs, even unassisted", func(_ time.Time, f *Facts) { f.DiskStall, f.Assisted = StallAfter, false }, 0, Resign, DiskHangs},
		{"writes hang", func(_ time.Time, f *Facts) { f.Uncommitted = StallAfter }, 0, Resign, Uncommitted},
		{"writes are slow", func(_ time.Time, f *Facts) { f.Uncommitted = time.Second }, 0, Nothing, ""},
		{"writes hang, as they did a minute ago", func(now time.Time, f *Facts) {
			f.Uncommitted, f.Memory.Stalls = StallAfter, []time.Time{now.Add(-time.Minute)}
		}, 0, Nothing, ""},
		{"writes hang for longer than a minute ago", func(now time.Time, f *Facts) {
			f.Uncommitted, f.Memory.Stalls = 2*StallAfter, []time.Time{now.Add(-time.Minute)}
		}, 0, Resign, Uncommitted},
		{"writes hang, as they did an hour ago", func(now time.Time, f *Facts) {
			f.Uncommitted, f.Memory.Stalls = StallAfter, []time.Time{now.Add(-time.Hour)}
		}, 0, Resign, Uncommitted},
		{"writes hang again and again", func(now time.Time, f *Facts) {
			f.Uncommitted, f.Memory.Stalls = stallMost, make([]time.Time, 50)
			for i := range f.Memory.Stalls {
				f.Memory.Stalls[i] = now
			}
		}, 0, Resign, Uncommitted},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, f := base()
			f.Self, f.Leading = "servers/b", 7
			f.Leader, f.Boot, f.Peers[0] = "servers/b", "b1", view(now, "a", 0, &peerv1.Beat{})
			f.Memory = Memory{Term: 7}
			if c.deaf > 0 {
				f.Memory.Deaf = now.Add(-c.deaf)
			}
			d := Judge(now, with(f, c.change, now))
			if d.Act != c.act || d.Cause != c.cause {
				t.Errorf("%+v, want act %d for %q", d, c.act, c.cause)
			}
		})
	}
}

// The first by name of those that say the same acts at once, the next one a turn later, unless it hears that the first cannot.
func TestOneEvictsAndTheOthersFollow(t *testing.T) {
	now, f := base()
	silent(time.Second)(now, &f)
	f.Peers[1] = view(now, "c", 0, missesA(time.Second, false))
	if d := Judge(now, f); d.Act != Evict {
		t.Fatalf("b: %+v", d)
	}
	f.Self, f.Peers[1] = "servers/c", view(now, "b", 0, missesA(time.Second, false))
	d := Judge(now, f)
	if d.Act != Nothing || !d.Next.Equal(now.Add(turn)) {
		t.Fatalf("c: %+v, want nothing before %s", d, turn)
	}
	f.Memory = d.Memory
	if d := Judge(now.Add(turn), with(f, func(_ time.Time, f *Facts) { f.Peers[1].Heard = now.Add(turn) }, now)); d.Act != Evict {
		t.Fatalf("c a turn later: %+v", d)
	}
	f.Memory = Memory{}
	f.Peers[1].Beat.EtcdLostTime = timestamppb.New(now)
	if d := Judge(now, f); d.Act != Evict {
		t.Fatalf("c while b has lost etcd: %+v", d)
	}
}

// Two servers that reach etcd and not each other evict each other; each time they wait longer, so leadership stays for minutes in the end.
func TestLeadershipDoesNotPingPong(t *testing.T) {
	now, f := base()
	f.Peers = f.Peers[:1]
	var gaps []time.Duration
	begun, last := now, now
	for now.Before(begun.Add(time.Hour)) {
		f.Peers[0].Heard, f.Peers[0].Since = now.Add(-time.Hour), now.Add(-2*time.Hour)
		f.Read = now
		d := Judge(now, f)
		f.Memory = d.Memory
		if d.Act == Evict {
			f.Memory.Evictions = append(f.Memory.Evictions, Eviction{Leader: f.Leader, Boot: f.Boot, Term: f.Term, At: now})
			gaps = append(gaps, now.Sub(last))
			last = now
			f.Term += 2 // the other one evicted us and leads again
		}
		now = now.Add(100 * time.Millisecond)
	}
	if len(gaps) < 3 || len(gaps) > 30 {
		t.Fatalf("%d evictions in an hour: %v", len(gaps), gaps)
	}
	for i, g := range gaps[1:] {
		if g < restAfter || (i > 3 && i < 5 && g < 2*time.Minute) {
			t.Errorf("the gaps are %v: they do not grow", gaps)
			break
		}
	}
	t.Logf("%d evictions in an hour, after %v", len(gaps), gaps)
}

// What must hold whatever the facts are.
func TestJudgeNeverEvictsWithoutReason(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	acts := map[Act]int{}
	for i := range 200_000 {
		now, f := base()
		f = randomFacts(r, now, f)
		d := Judge(now, f)
		acts[d.Act]++
		if again := Judge(now, f); !reflect.DeepEqual(d, again) {
			t.Fatalf("%d: equal facts gave %+v and %+v", i, d, again)
		}
		if !d.Next.IsZero() && d.Next.Before(now) {
			t.Fatalf("%d: next look %s ago", i, now.Sub(d.Next))
		}
		leader := f.Peers[0]
		switch {
		case d.Act == Evict && (f.Leading != 0 || f.Leader != "servers/a" || !f.Assisted || f.Stopping):
			t.Fatalf("%d: evicts though it must not: %+v", i, f)
		case d.Act == Evict && leader.Silence(now) < GoneAfter && leader.BootID == f.Boot && leader.Beat.GetLeading() && leader.Beat.GetDiskStall() == nil && leader.Beat.GetStopTime() == nil:
			t.Fatalf("%d: evicts a healthy leader: %+v", i, f)
		case d.Act == Evict && (d.Cause == Silent || d.Cause == Gone) && len(f.Peers) > 1 && !seconds(now, f.Peers[1], f):
			t.Fatalf("%d: evicts on its own word: %+v", i, f)
		case d.Act == Evict && d.Cause == Silent && now.Before(rested(d.Memory.Evictions)):
			t.Fatalf("%d: evicts too soon: %+v", i, f)
		case d.Act == Resign && f.Leading == 0:
			t.Fatalf("%d: resigns without leading", i)
		}
	}
	for _, a := range []Act{Nothing, Evict, Resign, Read, Rest} {
		if acts[a] == 0 {
			t.Errorf("act %d never came up: %v", a, acts)
		}
	}
}

func randomFacts(r *rand.Rand, now time.Time, f Facts) Facts {
	one := func(n int) bool { return r.IntN(n) == 0 }
	ago := func() time.Duration { return time.Duration(r.IntN(4000)) * time.Millisecond }
	f.Assisted, f.Stopping = !one(20), one(20)
	f.Peers[0].Heard, f.Peers[0].Refused = now.Add(-ago()), one(3)
	if one(4) {
		f.Peers[0].Heard = time.Time{}
		f.Peers[0].Since = now.Add(-ago())
	}
	f.Peers[0].BootID = fmt.Sprintf("a%d", 1+r.IntN(8)/7)
	f.Peers[0].Beat.Leading = !one(4)
	if one(4) {
		f.Peers[0].Beat.DiskStall = durationpb.New(ago())
	}
	if one(8) {
		f.Peers[0].Beat.StopTime = timestamppb.New(now)
	}
	f.Peers[1] = view(now, string(rune('a'+r.IntN(4))), ago()/4, missesA(ago(), one(2)))
	f.Peers[1].Beat.Missed[0].BootId = fmt.Sprintf("a%d", r.IntN(2))
	f.Peers[1].Beat.Hears = int32(r.IntN(9))
	if one(4) {
		f.Peers = f.Peers[:1]
		f.Read = now.Add(-ago())
	}
	f.Memory = Memory{Term: 7, Due: now.Add(-ago()), Cause: Silent}
	if one(2) {
		f.Memory.Disowned = now.Add(-ago())
	}
	if one(3) {
		f.Memory.Evictions = []Eviction{{Leader: "servers/a", Boot: "a1", Term: 6, At: now.Add(-10 * ago())}}
	}
	if one(5) {
		f.Leading, f.Leader, f.Boot = 7, "servers/b", "b1"
		f.Hears, f.Uncommitted = r.IntN(5), ago()/2
		f.Memory.Deaf = now.Add(-2 * ago())
	}
	return f
}

func TestWhoMayStand(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(now time.Time, f *Facts)
		vacant time.Duration
		out    time.Duration // from now
		want   bool
	}{
		{"anybody at once", func(time.Time, *Facts) {}, 0, 0, true},
		{"not who stops", func(_ time.Time, f *Facts) { f.Stopping = true }, time.Hour, 0, false},
		{"not whose disk hangs", func(_ time.Time, f *Facts) { f.DiskStall = StallAfter }, time.Hour, 0, false},
		{"not who hears much less than another, at first", func(_ time.Time, f *Facts) { f.Hears = 2 }, 0, 0, false},
		{"who hears less, when nobody else does", func(_ time.Time, f *Facts) { f.Hears = 2 }, yield, 0, true},
		{"not who hears none of the others, at first", func(now time.Time, f *Facts) {
			f.Peers[0].Heard, f.Peers[1].Heard = now.Add(-time.Minute), now.Add(-time.Minute)
		}, 0, 0, false},
		{"who hears none of the others, when nobody else does", func(now time.Time, f *Facts) {
			f.Peers[0].Heard, f.Peers[1].Heard = now.Add(-time.Minute), now.Add(-time.Minute)
		}, yield, 0, true},
		{"who misses one of two, at once", func(now time.Time, f *Facts) { f.Peers[0].Heard = now.Add(-time.Minute) }, 0, 0, true},
		{"who misses the only other, at once", func(now time.Time, f *Facts) { f.Peers = f.Peers[:1]; f.Peers[0].Heard = now.Add(-time.Minute) }, 0, 0, true},
		{"not who resigned deaf", func(time.Time, *Facts) {}, time.Second, time.Second, false},
		{"who resigned deaf, when nobody else does", func(time.Time, *Facts) {}, untaken, time.Second, true},
		{"who resigned deaf and is alone", func(_ time.Time, f *Facts) { f.Peers = nil }, 0, time.Second, true},
	} {
		now, f := base()
		if got := MayStand(now, with(f, c.change, now), c.vacant, now.Add(c.out)); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
