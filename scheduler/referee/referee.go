package referee

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Options say how much is played.
type Options struct {
	// Seed decides everything. Equal options give equal figures.
	Seed uint64
	// Rounds is how many rounds of each class are played. Default 200. Outages are played four times as often, with a quarter of the checks: detection times
	// need many rounds and few checks.
	Rounds int
	// Checks is how many checks a round has, 4 at least. Default 30.
	Checks int
	// Rules are the rules. Default: all of Rules.
	Rules []*Rule
	// Progress, if set, is called now and then with how many of all plays are done; never concurrently.
	Progress func(done, all int)
}

// roundLength is how long a round lasts: the fault begins after its first tenth, and rules have time to close what they opened.
const roundLength = 50 * time.Minute

// lost is how many probes fail by themselves.
const lost = 0.0002

// quietClass is the class without any fault but lost probes.
const quietClass = "lost probes"

// Score is what a rule did in all rounds of a class.
type Score struct {
	// Rounds, and the check-days that they watched.
	Rounds    int
	CheckDays float64
	// Probes were sent.
	Probes int64
	// Detections are the times from the target's failure to the decision, sorted; of classes that are outages.
	Detections []time.Duration
	// Missed outages.
	Missed int
	// False alerts, and those in a round with any.
	False, FalseRounds int
	// Partial alerts: the target failed only in part, or only for seconds.
	Partial int
}

// Line is one rule's figures.
type Line struct {
	Rule *Rule
	// ByClass are the scores in the order of Classes.
	ByClass []Score
	// P50 and P99 are the detection times of outages.
	P50, P99 time.Duration
	// FalsePerMillion are the false alerts per million check-days, with all classes at their rates. Error is the half width of its 95 % confidence interval, as far as
	// the classes tell in which there was any.
	FalsePerMillion, Error float64
	// MissedShare is the share of outages that were missed.
	MissedShare float64
	// ProbesPerDay are the probes a check costs a day when nothing fails.
	ProbesPerDay float64
}

// Play plays every class under every rule. It uses all processors, and ends early, with ctx's error, when ctx ends.
func Play(ctx context.Context, o Options) ([]Line, error) {
	if o.Rounds == 0 {
		o.Rounds = 200
	}
	if o.Checks == 0 {
		o.Checks = 30
	}
	if o.Rules == nil {
		o.Rules = Rules()
	}
	classes := Classes()
	lines := make([]Line, len(o.Rules))
	for i, r := range o.Rules {
		lines[i] = Line{Rule: r, ByClass: make([]Score, len(classes))}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, all := 0, 0
	for _, c := range classes {
		all += c.rounds(o)
	}
	work := make(chan [2]int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for job := range work {
				w := round(o, classes[job[0]], job[1])
				scores := make([]Score, len(o.Rules))
				for i, r := range o.Rules {
					scores[i] = judge(w, r)
				}
				mu.Lock()
				for i := range scores {
					lines[i].ByClass[job[0]].add(&scores[i])
				}
				if done++; o.Progress != nil {
					o.Progress(done, all)
				}
				mu.Unlock()
			}
		})
	}
	for c := range classes {
		for r := range classes[c].rounds(o) {
			select {
			case work <- [2]int{c, r}:
			case <-ctx.Done():
			}
		}
	}
	close(work)
	wg.Wait()
	for i := range lines {
		lines[i].sum(classes, o.Checks)
	}
	return lines, ctx.Err()
}

// outageFactor is how many more rounds outages are played, each with so many fewer checks.
const outageFactor = 4

func (c *Class) rounds(o Options) int {
	if c.Outage {
		return outageFactor * o.Rounds
	}
	return o.Rounds
}

// round is the truth of one round.
func round(o Options, class *Class, n int) *Truth {
	seed := o.Seed ^ hashOf(class.Name) ^ uint64(n)*0x9E3779B97F4A7C15
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	w := &Truth{seed: seed, Places: Places(), Lost: lost, Length: roundLength, Checks: o.Checks}
	if class.Outage {
		w.Checks = max(1, o.Checks/outageFactor)
	}
	f := Fault{Class: class, Target: -1, Start: roundLength/10 + time.Duration(rng.Int64N(int64(5*time.Minute)))}
	class.make(rng, w, &f)
	if f.End > f.Start {
		w.Faults = []Fault{f}
	}
	return w
}

// judge plays one rule and counts.
func judge(w *Truth, r *Rule) Score {
	s := Score{Rounds: 1, CheckDays: float64(w.Checks) * w.Length.Hours() / 24}
	alerts, probes := r.Play(w)
	s.Probes = int64(probes)
	for i := range w.Faults {
		if f := &w.Faults[i]; f.Class.Outage {
			s.outage(f, alerts)
		}
	}
	for _, a := range alerts {
		// In a round of one target's fault the others are as in the class without any.
		if len(w.Faults) > 0 && w.Faults[0].Target >= 0 && a.Check != w.Faults[0].Target {
			continue
		}
		switch {
		case a.Start < 0 || !w.troubled(a.Check, a.Start):
			s.False++
		case !w.down(a.Check, a.Start) && !w.Faults[0].Class.Outage:
			s.Partial++
		}
	}
	if s.False > 0 {
		s.FalseRounds = 1
	}
	return s
}

func (s *Score) outage(f *Fault, alerts []Alert) {
	first := time.Duration(-1)
	for _, a := range alerts {
		if a.Check == f.Target && a.End > f.Start && a.Start < f.End && (first < 0 || a.Start < first) {
			first = a.Start
		}
	}
	if first < 0 {
		s.Missed++
		return
	}
	s.Detections = append(s.Detections, max(0, first-f.Start))
}

func (s *Score) add(o *Score) {
	s.Rounds, s.CheckDays, s.Probes = s.Rounds+o.Rounds, s.CheckDays+o.CheckDays, s.Probes+o.Probes
	s.Missed, s.False, s.FalseRounds, s.Partial = s.Missed+o.Missed, s.False+o.False, s.FalseRounds+o.FalseRounds, s.Partial+o.Partial
	s.Detections = append(s.Detections, o.Detections...)
}

// perDay is how often a class of fault occurs per check and day, in a world of so many checks: a fault of the probers concerns all of them, each once.
func (c *Class) perDay() float64 { return c.PerDay }

// sum works out the figures from the scores.
func (l *Line) sum(classes []*Class, checks int) {
	var detections []time.Duration
	missed, variance := 0, 0.0
	for i, c := range classes {
		s := &l.ByClass[i]
		if s.Rounds == 0 {
			continue
		}
		detections = append(detections, s.Detections...)
		missed += s.Missed
		// False alerts of one round, for each check in it, weighed by how often such a round happens. A class without faults is watched for the time it lasts.
		weight := c.perDay() / float64(checks) / float64(s.Rounds)
		switch {
		case c.Target:
			weight = c.perDay() / float64(s.Rounds)
		case c.Name == quietClass:
			weight = 1 / s.CheckDays
			l.ProbesPerDay = float64(s.Probes) / s.CheckDays
		}
		l.FalsePerMillion += 1e6 * weight * float64(s.False)
		// False alerts of one round come together: what is independent is rounds.
		if s.FalseRounds > 0 {
			each := 1e6 * weight * float64(s.False) / float64(s.FalseRounds)
			variance += each * each * float64(s.FalseRounds)
		}
	}
	slices.Sort(detections)
	if n := len(detections); n > 0 {
		l.P50, l.P99 = detections[n/2], detections[min(n-1, n*99/100)]
		l.MissedShare = float64(missed) / float64(n+missed)
	} else if missed > 0 {
		l.MissedShare = 1
	}
	l.Error = 1.96 * math.Sqrt(variance)
}
