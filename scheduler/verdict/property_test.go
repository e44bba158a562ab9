package verdict

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func genVotes(t *rapid.T) []Vote {
	n := rapid.IntRange(0, 12).Draw(t, "votes")
	votes := make([]Vote, n)
	for i := range votes {
		start := noon.Add(-time.Duration(rapid.IntRange(-5, 120).Draw(t, "ago")) * time.Second)
		votes[i] = Vote{
			Prober: fmt.Sprint("p", i), Datacenter: string(rune('a' + rapid.IntRange(0, 4).Draw(t, "dc"))), Outcome: Outcome(rapid.IntRange(0, 3).Draw(t, "outcome")),
			Start: start, Since: start.Add(-time.Duration(rapid.IntRange(0, 300).Draw(t, "since")) * time.Second), Streak: rapid.IntRange(1, 4).Draw(t, "streak"),
			Drained: rapid.IntRange(0, 9).Draw(t, "drained") == 0, Domains: map[string]string{"build": fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "build"))},
		}
		votes[i].LevelSince, votes[i].Level = votes[i].Since, votes[i].Streak
		if votes[i].Outcome == OK {
			votes[i].Degraded = rapid.Bool().Draw(t, "degraded")
			votes[i].Level = rapid.IntRange(1, votes[i].Streak).Draw(t, "level")
			if votes[i].Level < votes[i].Streak {
				votes[i].LevelSince = votes[i].Since.Add(start.Sub(votes[i].Since) / 2)
			}
		}
	}
	return votes
}

func genPolicy(t *rapid.T) Policy {
	p := Policy{Quorum: rapid.IntRange(1, 5).Draw(t, "quorum"), Fresh: 72 * time.Second}
	if rapid.Bool().Draw(t, "distinct") {
		p.Distinct = []string{"build"}
	}
	return p
}

// unmarked is the tally without the marks, which are indexes into the votes as they were ordered.
func unmarked(t Tally) Tally { t.FailVotes, t.FreshVotes, t.DegradedVotes = 0, 0, 0; return t }

// TestDegradedAnswersChangeNothingButUp: whatever is degraded, the tally is the same as without that, except that UP may be DEGRADED, and then for as many datacenters as the quorum.
func TestDegradedAnswersChangeNothingButUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := genPolicy(t), genVotes(t)
		plain := append([]Vote(nil), votes...)
		for i := range plain {
			plain[i].Degraded = false
		}
		got, want := Fold(p, votes, noon), Fold(p, plain, noon)
		limping := got.Degraded
		got.Degraded, got.DegradedVotes = 0, 0
		if got.Verdict == Degraded && got.Reason == QuorumDegraded {
			if want.Verdict != Up || limping < p.Quorum {
				t.Fatalf("%s %s by %d degraded datacenters, quorum %d; without them %s", got.Verdict, got.Reason, limping, p.Quorum, want.Verdict)
			}
			got.Verdict, got.Reason = want.Verdict, want.Reason
		}
		if got != want {
			t.Fatalf("%+v, without degraded ones %+v", got, want)
		}
		if Recovered(p, votes, noon, time.Second) != Recovered(p, plain, noon, time.Second) || Steady(p, votes, noon, time.Second) != Steady(p, plain, noon, time.Second) {
			t.Fatal("degraded answers changed a recovery from DOWN")
		}
		if n := Limping(p, votes, noon, 0); n < limping || n > want.OK {
			t.Fatalf("%d limping, %d degraded now, %d answering", n, limping, want.OK)
		}
	})
}

func TestFoldDoesNotDependOnTheOrderOfVotes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := genPolicy(t), genVotes(t)
		mixed := append([]Vote(nil), votes...)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "shuffle"), 0)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		if a, b := unmarked(Fold(p, votes, noon)), unmarked(Fold(p, mixed, noon)); a != b {
			t.Fatalf("%+v, in another order %+v", a, b)
		}
		if a, b := Recovered(p, votes, noon, time.Second), Recovered(p, mixed, noon, time.Second); a != b {
			t.Fatalf("recovered %t, in another order %t", a, b)
		}
	})
}

// failingDomains counts again, the slow way, the datacenters with a fresh failing vote and no fresh answering one.
func failingDomains(p Policy, votes []Vote) int {
	fail, ok := map[string]bool{}, map[string]bool{}
	for _, v := range votes {
		if v.Drained || noon.Sub(v.Start) >= p.Fresh || v.Start.Sub(noon) > FutureSlack {
			continue
		}
		switch v.Outcome {
		case Fail:
			fail[v.Datacenter] = true
		case OK:
			ok[v.Datacenter] = true
		}
	}
	for d := range ok {
		delete(fail, d)
	}
	return len(fail)
}

func TestNoDownWithoutAQuorumOfDistinctFreshFailingDatacenters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := genPolicy(t), genVotes(t)
		got := Fold(p, votes, noon)
		if n := failingDomains(p, votes); n != got.Failing || got.Verdict == Down && n < p.Quorum {
			t.Fatalf("%s with %d failing datacenters, the tally says %d, quorum %d", got.Verdict, n, got.Failing, p.Quorum)
		}
		if got.Verdict == Up && got.Fresh < p.Quorum {
			t.Fatalf("UP with %d datacenters heard, quorum %d", got.Fresh, p.Quorum)
		}
	})
}

func TestAnotherAnswerNeverTurnsUpIntoDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := genPolicy(t), genVotes(t)
		before := Fold(p, votes, noon)
		more := append(votes, Vote{Prober: "new", Datacenter: string(rune('a' + rapid.IntRange(0, 5).Draw(t, "where"))), Outcome: OK, Start: noon, Since: noon, Streak: 1,
			Domains: map[string]string{"build": "9"}})
		after := Fold(p, more, noon)
		if after.Verdict == Down && before.Verdict != Down {
			t.Fatalf("%s, and with one more answer %s", before.Verdict, after.Verdict)
		}
		if after.Failing > before.Failing {
			t.Fatal("an answer made more datacenters fail")
		}
	})
}

func TestDownAndRecoveredExcludeEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := genPolicy(t), genVotes(t)
		if Fold(p, votes, noon).Verdict == Down && Recovered(p, votes, noon, 0) {
			t.Fatal("a check is DOWN and recovered at once")
		}
		// Recovery asks for as many datacenters as DOWN did.
		if Recovered(p, votes, noon, 0) && Steady(p, votes, noon, 0) < p.Quorum {
			t.Fatal("recovered with fewer datacenters than the quorum")
		}
	})
}

func TestVotesGoStaleAndNeverFreshAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := genPolicy(t), genVotes(t)
		later := noon.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "later")) * time.Second)
		if a, b := Fold(p, votes, noon), Fold(p, votes, later); b.FreshVotes&^a.FreshVotes != 0 {
			t.Fatal("a vote that was stale is fresh later")
		}
	})
}

func FuzzFold(f *testing.F) {
	f.Add([]byte{3, 1, 2, 10, 2, 2, 20, 0, 1, 70}, 2)
	f.Fuzz(func(t *testing.T, b []byte, quorum int) {
		p := Policy{Quorum: quorum%8 + 8, Fresh: time.Minute, Distinct: []string{"build"}}
		p.Quorum = p.Quorum%8 + 1
		var votes []Vote
		for len(b) >= 3 && len(votes) < MaxVotes {
			start := noon.Add(-time.Duration(int8(b[2])) * time.Second)
			votes = append(votes, Vote{
				Datacenter: string(rune('a' + b[0]%6)), Outcome: Outcome(b[1] % 4), Start: start, Since: start, Streak: int(b[1]>>4) + 1,
				Domains: map[string]string{"build": string(rune('0' + b[0]>>6))},
			})
			b = b[3:]
		}
		got := Fold(p, votes, noon)
		if got.Failing+got.OK+got.Mixed != got.Fresh || got.Failing != failingDomains(p, votes) {
			t.Fatalf("the tally does not add up: %+v", got)
		}
		if got.Verdict == Down && got.Failing < p.Quorum {
			t.Fatalf("DOWN without a quorum: %+v", got)
		}
	})
}

func TestCastCountsStreaks(t *testing.T) {
	var v Vote
	for i, c := range []struct {
		out           Outcome
		at            int
		streak, since int
		newest        int
	}{
		{OK, 0, 1, 0, 0}, {OK, 10, 2, 0, 10}, {Fail, 20, 1, 20, 20}, {Fail, 15, 1, 20, 20}, {Fail, 20, 1, 20, 20}, {Fail, 30, 2, 20, 30}, {Fault, 40, 1, 40, 40}, {OK, 50, 1, 50, 50},
	} {
		at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
		v = Cast(v, c.out, false, at(c.at))
		if v.Streak != c.streak || !v.Since.Equal(at(c.since)) || !v.Start.Equal(at(c.newest)) {
			t.Fatalf("step %d: %+v", i, v)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	p := Policy{Quorum: 3, Fresh: 72 * time.Second, Distinct: []string{"build"}}
	var votes []Vote
	for i := range 5 {
		votes = append(votes, Vote{Prober: fmt.Sprint(i), Datacenter: fmt.Sprint("dc", i), Outcome: OK, Start: noon, Since: noon, Streak: 3, Domains: map[string]string{"build": "1"}})
	}
	b.ReportAllocs()
	for b.Loop() {
		Fold(p, votes, noon)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "folds/s")
}
