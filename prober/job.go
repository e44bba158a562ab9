package prober

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// usualWeight is how much one duration moves the usual one: an eighth, as TCP smooths its round trips (RFC 6298). So many good probes make it known; until then
// it is their mean.
const usualWeight = 8

// job is an assignment with its compiled check and what was seen of it. A prober may have many thousands, so that it keeps little: of the assignment what a probe needs, and the
// newest result as it is encoded, which is a tenth of what the message takes.
type job struct {
	check    string
	revision int64
	traced   bool
	runner   probe.Runner
	kind     string
	interval time.Duration
	timeout  time.Duration

	mu       sync.Mutex // guards everything below
	users    int        // probes that run
	retired  bool       // no probe starts any more; the last one closes the runner
	usual    time.Duration
	strays   time.Duration // how far durations usually are from usual
	known    int64         // good probes that usual was learned from, at most usualWeight
	seen     seen
	newest   []byte // encoded; nil before the first one
	unsynced bool   // newest has a start time on a clock that was never compared
}

// seen is what a probe said, as far as the next one is compared with it.
type seen struct {
	outcome  meshv1.Result_Outcome // OUTCOME_UNSPECIFIED before the first one
	class    meshv1.Result_ErrorClass
	degraded bool
	start    time.Time
}

// inherit takes over what the job before saw, when it ran the same revision of the check.
func (j *job) inherit(old *job) {
	if old.revision != j.revision {
		return
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	j.usual, j.strays, j.known = old.usual, old.strays, old.known
	j.seen, j.newest, j.unsynced = old.seen, slices.Clone(old.newest), old.unsynced // a probe of old that still runs writes over its newest
}

// use keeps the runner open until done is called; false when the job is retired.
func (j *job) use() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.retired {
		return false
	}
	j.users++
	return true
}

func (j *job) done() {
	j.mu.Lock()
	j.users--
	last := j.retired && j.users == 0
	j.mu.Unlock()
	if last {
		j.runner.Close()
	}
}

// retire closes the runner as soon as no probe uses it.
func (j *job) retire() {
	j.mu.Lock()
	last := !j.retired && j.users == 0
	j.retired = true
	j.mu.Unlock()
	if last {
		j.runner.Close()
	}
}

// slowAfter is how long a probe may take before it is abnormally late: four times the usual duration, at least a tenth and at most a third of the timeout. A
// target that is known to be slow, so that half as much again as usual is more than that third, is not called late at its usual speed: the most is then so much, and at
// least four times as far from usual as its durations usually are.
// It is 0, never, after a failure: then the mesh has been told already; and when less than a quarter of the timeout would be gained.
func (j *job) slowAfter() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seen.outcome == meshv1.Result_FAIL {
		return 0
	}
	most := j.timeout / 3
	if j.known == 0 {
		return most
	}
	if slow := j.usual * 3 / 2; slow > most && j.known == usualWeight {
		most = max(slow, j.usual+4*j.strays)
	}
	after := min(max(4*j.usual, j.timeout/10), most)
	if after > j.timeout*3/4 {
		return 0
	}
	return after
}

// learn takes a result in, which it is given as encoded too, and tells whether it says something else than the one before.
func (j *job) learn(r *meshv1.Result, encoded []byte, unsynced bool) (changed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if d := r.GetDuration().AsDuration(); r.GetOutcome() == meshv1.Result_OK && d > 0 {
		j.smooth(d)
	}
	now := seen{r.GetOutcome(), r.GetErrorClass(), r.GetDegraded() != "", r.GetStartTime().AsTime()}
	old := j.seen
	if j.newest != nil && now.start.Before(old.start) && j.unsynced == unsynced {
		return false // a run that was asked for overtook it
	}
	first := j.newest == nil
	if c := cap(j.newest); c < len(encoded) || c > 2*len(encoded) {
		j.newest = make([]byte, 0, len(encoded)) // append would double it; a failure with its evidence leaves much more than is needed
	}
	j.seen, j.newest, j.unsynced = now, append(j.newest[:0], encoded...), unsynced
	return first || old.outcome != now.outcome || old.class != now.class || old.degraded != now.degraded
}

// smooth takes the duration of a good probe into the usual one. Called under mu.
func (j *job) smooth(d time.Duration) {
	j.known = min(j.known+1, usualWeight)
	weight := time.Duration(j.known)
	if j.known > 1 {
		j.strays += ((d - j.usual).Abs() - j.strays) / weight
	}
	j.usual += (d - j.usual) / weight
}

// result is the newest result; nil before the first one. Whoever asks for it owns it.
func (j *job) result() (r *meshv1.Result, unsynced bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.newest == nil {
		return nil, false
	}
	r = &meshv1.Result{}
	if err := proto.Unmarshal(j.newest, r); err != nil {
		panic("prober: a result that was encoded cannot be decoded: " + err.Error())
	}
	return r, j.unsynced
}
