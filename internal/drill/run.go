package drill

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
)

// Options are how a drill is run.
type Options struct {
	// Program is the path of the probemesh binary that the mesh consists of.
	Program string
	// Version is the program's, for the report.
	Version string
	// Data is the directory for the data and logs of all processes. Empty: one below the system's directory for temporary files, which is deleted at the end
	// unless Keep is set, or the drill came to its end and did not pass.
	Data string
	Keep bool
	// Times is how often the scenario is repeated, 0 for as often as it says itself. Short makes it short.
	Times int
	Short bool
	// Seed decides every random choice. 0: one is chosen and reported.
	Seed uint64
	// Interval is that of the checks, 1s or more; 0 means 2s.
	Interval time.Duration
	// LeaseTTL is the leaders' lease, whole seconds from 2s; 0 means 5s, the product's default.
	LeaseTTL time.Duration
	// Progress is where lines about the progress go, as they come. Nil: nowhere.
	Progress io.Writer
}

// Run is one execution of a scenario. Its methods may be used concurrently unless they say otherwise.
type Run struct {
	Options
	// Rand makes the random choices; for the scenario's own goroutine only.
	Rand *rand.Rand
	// Receiver remembers what the mesh has announced.
	Receiver *Receiver

	begun time.Time

	mu       sync.Mutex // guards all below
	figures  []Figure
	samples  map[string][]float64
	notes    []string
	targets  []*Target
	outages  []*Outage
	absences []absence
	watched  map[*Mesh]time.Time
	cleanups []func()
}

// Execute runs a scenario and reports. It never fails otherwise than in its report. A machine that lacks something skips it.
func Execute(ctx context.Context, s Scenario, o Options) *Report {
	if o.Times == 0 {
		o.Times = cmp.Or(s.Times, 1)
		if o.Short {
			o.Times = cmp.Or(s.ShortTimes, 1)
		}
	}
	o.Interval, o.LeaseTTL = cmp.Or(o.Interval, 2*time.Second), cmp.Or(o.LeaseTTL, 5*time.Second)
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1<<32) + 1
	}
	report := &Report{Drill: s.Name, Promise: s.Promise, Version: o.Version, Times: o.Times, Short: o.Short, Seed: o.Seed, IntervalSeconds: o.Interval.Seconds(),
		StartTime: time.Now(), Figures: []Figure{}, Samples: map[string][]float64{}, Notes: []string{}}
	if err := s.Missing(); err != nil {
		report.Skipped = err.Error()
		return report
	}
	temporary := o.Data == ""
	if err := o.makeData(s.Name); err != nil {
		report.Error = err.Error()
		return report
	}
	r := &Run{Options: o, Rand: rand.New(rand.NewPCG(o.Seed, 0)), begun: report.StartTime, samples: map[string][]float64{}, watched: map[*Mesh]time.Time{}}
	err := r.execute(ctx, s)
	r.keepRecord()
	report.DurationSeconds = time.Since(report.StartTime).Seconds()
	report.Figures, report.Samples, report.Notes = append(report.Figures, r.figures...), r.samples, append(report.Notes, r.notes...)
	report.Passed = err == nil && len(report.Failed()) == 0 && len(report.Figures) > 0
	if err != nil {
		report.Error = err.Error()
	}
	report.Data = o.Data
	if temporary && !o.Keep && (report.Passed || ctx.Err() != nil) { // an interrupted drill is no failed one
		if err := os.RemoveAll(o.Data); err == nil {
			report.Data = ""
		}
	}
	return report
}

// keepRecord writes down beside the logs what the receiver got and when the targets were down, for whoever looks into a drill that failed.
func (r *Run) keepRecord() {
	var record bytes.Buffer
	if r.Receiver != nil {
		for _, d := range r.Receiver.All() {
			body, _ := protojson.Marshal(d.Note)
			fmt.Fprintf(&record, "{\"time\": %q, \"idempotency_key\": %q, \"fault\": %q, \"body\": %s}\n", d.At.Format(time.RFC3339Nano), d.Key, d.Fault, body)
		}
	}
	var truth bytes.Buffer
	for _, o := range r.Truth() {
		fmt.Fprintf(&truth, "{\"check\": %q, \"fault\": %q, \"down\": %q, \"up\": %q, \"bound_seconds\": %g}\n", o.Check, o.Fault, o.Down.Format(time.RFC3339Nano), o.Up.Format(time.RFC3339Nano), o.Bound.Seconds())
	}
	for name, b := range map[string][]byte{"receiver.jsonl": record.Bytes(), "outages.jsonl": truth.Bytes()} {
		if err := os.WriteFile(filepath.Join(r.Data, name), b, 0o600); err != nil {
			r.Remark("the record could not be written down: %v", err)
		}
	}
}

func (o *Options) makeData(name string) (err error) {
	if o.Data == "" {
		o.Data, err = os.MkdirTemp("", "probemesh-drill-"+name+"-")
		return err
	}
	o.Data = filepath.Join(o.Data, name)
	if entries, err := os.ReadDir(o.Data); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; a drill begins with a new mesh, so choose another --data or delete it", o.Data)
	}
	return os.MkdirAll(o.Data, 0o700)
}

func (r *Run) execute(ctx context.Context, s Scenario) (err error) {
	defer r.cleanup()
	if r.Receiver, err = startReceiver(); err != nil {
		return err
	}
	r.Cleanup(r.Receiver.Close)
	r.Say("drill %s: %s (%d times, seed %d, interval %s, lease %s)", s.Name, s.Summary, r.Times, r.Seed, r.Interval, r.LeaseTTL)
	if err := s.Run(ctx, r); err != nil {
		return err
	}
	return ctx.Err()
}

// Cleanup has f called at the end of the run, whatever its outcome; the last one given is called first.
func (r *Run) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *Run) cleanup() {
	for {
		r.mu.Lock()
		n := len(r.cleanups)
		if n == 0 {
			r.mu.Unlock()
			return
		}
		f := r.cleanups[n-1]
		r.cleanups = r.cleanups[:n-1]
		r.mu.Unlock()
		f()
	}
}

// Say writes a line about the progress, with the time.
func (r *Run) Say(format string, args ...any) {
	if r.Progress == nil {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.Progress, "%s %7.1fs  %s\n", now.Format("15:04:05.000"), now.Sub(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

// Remark adds a note to the report and says it.
func (r *Run) Remark(format string, args ...any) {
	r.Say("note: "+format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// Inform adds a figure that is held against nothing. why says what it is.
func (r *Run) Inform(name, unit string, value float64, why string, details ...string) {
	r.add(newFigure(name, unit, value, why, details))
}

// AtMost adds a figure that must not exceed a bound. why says where the bound comes from, details are the cases counted.
func (r *Run) AtMost(name, unit string, value, bound float64, why string, details ...string) {
	r.add(newFigure(name, unit, value, why, details).held(atMost, bound))
}

// AtLeast adds a figure that must reach a bound, for example the writes that a fence refused: a drill that never met the fence has shown nothing.
func (r *Run) AtLeast(name, unit string, value, bound float64, why string, details ...string) {
	r.add(newFigure(name, unit, value, why, details).held(atLeast, bound))
}

// Distribution adds p50, p90, p99 and max of times, named NAME_seconds_p50 and so on, and keeps the samples.
func (r *Run) Distribution(name string, samples []time.Duration, b Bounds, why string) {
	seconds := make([]float64, len(samples))
	for i, s := range samples {
		seconds[i] = s.Seconds()
	}
	r.mu.Lock()
	r.samples[name+"_seconds"] = seconds
	r.mu.Unlock()
	r.add(distribution(name, samples, b, why)...)
}

func (r *Run) add(f ...Figure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures = append(r.figures, f...)
}

// Sleep waits, or gives the error of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// ErrNotYet is the cause when [Until] gave up.
var ErrNotYet = errors.New("it did not come to that in time")

// Until asks f every 20 ms until it says yes, for at most limit. f also says how things stand, for the error, which wraps ErrNotYet.
func Until(ctx context.Context, what string, limit time.Duration, f func() (ok bool, state string)) error {
	end := time.Now().Add(limit)
	for {
		ok, state := f()
		if ok {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %w (%s); the last state: %s", what, ErrNotYet, limit, state)
		}
		if err := Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w; the last state: %s", what, err, state)
		}
	}
}
