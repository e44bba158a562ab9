package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/internal/domain"
	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/server/store"
)

// Session is a prober's stream, as the controller sees it. None of its methods blocks.
type Session interface {
	// BootID is the prober's process.
	BootID() string
	// Wake says that what the prober should run has changed.
	Wake()
	// RunNow sends a run; false when the session's queue is full or the session is ending.
	RunNow(*meshv1.RunNow) bool
	// End ends the session because another of the same process has taken its place.
	End(reason string)
	// Facts are what the session knows of its prober.
	Facts() SessionFacts
}

// SessionFacts is what a session measured and was told.
type SessionFacts struct {
	ClockOffset, RoundTrip time.Duration
	Spooled, Dropped       int64
	Refusals               []*meshv1.AssignmentRefusal // sorted by check
	Revision               int64
	InSync                 bool
	Since                  time.Time
	// Address is where the session comes from; the zero Addr when the transport does not tell.
	Address netip.Addr
	// Canaries are those of the prober, as it told last; the slice is not changed afterwards.
	Canaries []*meshv1.CanaryState
	// Mistimed is how far the times on its newest results are off; 0 while they are right to a minute.
	Mistimed time.Duration
}

// Attach takes a prober's session: it enrols the prober if it is new or has changed, and makes it known to the mind and to the other servers. It fails with ALREADY_EXISTS
// (PROBER_NAME_TAKEN) while a session of another process has the name, here or at another server, and with UNAVAILABLE while the store has not been read or cannot be
// written.
func (c *Controller) Attach(ctx context.Context, h *meshv1.Hello, s Session) error {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "", "this server has not read the store yet; try again").Retry(time.Second)
	}
	// The name is taken before anything is written: another process of that name must not change the enrolment of the one that has a session.
	name := h.GetProber()
	mine := &claim{boot: h.GetBootId()}
	if err := c.claim(name, mine); err != nil {
		return err
	}
	err := c.enrol(ctx, h, domain.Observe(s.Facts().Address, h.GetMachine(), h.GetCapabilities()))
	c.mu.Lock()
	if c.claims[name] != mine {
		err = fault.New(codes.Aborted, meshv1.ErrorReason_PROBER_NAME_TAKEN, spec.Name(spec.Probers, name), "the same process has attached again meanwhile")
	} else {
		delete(c.claims, name)
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	if err := c.takenLocked(name, mine.boot); err != nil {
		c.mu.Unlock()
		return err // another server has said meanwhile that it has one
	}
	if other := c.sessions[name]; other != nil {
		other.End("the same process has attached again")
	}
	c.sessions[name] = s
	own := held{server: c.name(), boot: s.BootID(), since: s.Facts().Since.Round(0), session: s, hello: h}
	events := c.putLocked(name, own)
	if c.deps.Peers != nil {
		c.deps.Peers.Presence(own.message(name))
	}
	notes := c.applyLocked(events)
	c.mu.Unlock()
	c.tell(notes)
	return nil
}

// claim is a session that is being attached.
type claim struct{ boot string }

// claim reserves a prober's name for a process. A second attempt of the same process takes over from the first, which may hang.
func (c *Controller) claim(name string, mine *claim) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.takenLocked(name, mine.boot); err != nil {
		return err
	}
	if other := c.claims[name]; other != nil && other.boot != mine.boot {
		return taken(name, other.boot, c.name())
	}
	c.claims[name] = mine
	return nil
}

// takenLocked fails when a process other than that of the boot has a session of the name, here or at another server. A process that has died is missed within three
// seconds, so its successor gets in then; one that has only moved is the same boot.
func (c *Controller) takenLocked(name, boot string) error {
	for _, h := range c.presences.of(name) {
		if h.boot != boot {
			return taken(name, h.boot, h.server)
		}
	}
	return nil
}

func taken(name, boot, server string) error {
	return fault.New(codes.AlreadyExists, meshv1.ErrorReason_PROBER_NAME_TAKEN, spec.Name(spec.Probers, name),
		"another process (boot %s) has a session as prober %q, at %s; give this one another --name, or stop the other", boot, name, server).Retry(time.Second)
}

// Detach ends what Attach began. Leaving: the prober said goodbye.
func (c *Controller) Detach(name string, s Session, leaving bool) {
	c.mu.Lock()
	if c.sessions[name] != s {
		c.mu.Unlock()
		return
	}
	delete(c.sessions, name)
	events := c.dropLocked(name, c.name(), "", leaving, false)
	if c.deps.Peers != nil {
		c.deps.Peers.Presence(&peerv1.Presence{Prober: name, BootId: s.BootID(), Gone: true, Leaving: leaving})
	}
	notes := c.applyLocked(events)
	c.mu.Unlock()
	c.tell(notes)
}

// enrol writes the prober's enrolment if what is stored differs from what it says of itself.
func (c *Controller) enrol(ctx context.Context, h *meshv1.Hello, observed map[string]string) error {
	name := spec.Name(spec.Probers, h.GetProber())
	if claims := domain.Claims(h.GetLabels()); len(claims) > 0 {
		c.log.Warn("prober claims failure domains that the mesh sees itself; these labels are kept as claimed.KEY", "prober", name, "labels", claims)
	}
	c.mu.Lock()
	known := c.enrolments[h.GetProber()]
	c.mu.Unlock()
	for try := 0; ; try++ {
		if known.record != nil && sameIdentity(known.record, h) && !observedAnew(known.record, observed, time.Now()) {
			return nil
		}
		e := &statev1.Enrolment{
			Name: name, Datacenter: h.GetDatacenter(), Labels: h.GetLabels(), Build: h.GetBuild(), Capabilities: h.GetCapabilities(),
			Drained: known.record.GetDrained(), CreateTime: known.record.GetCreateTime(), Observed: observed, ObservedTime: timestamppb.Now(),
		}
		if e.CreateTime == nil {
			e.CreateTime = timestamppb.Now()
		}
		_, err := c.deps.Store.PutEnrolment(ctx, e, known.mod)
		if err == nil {
			c.logEnrolment(known.record, e)
			return nil
		}
		if !errors.Is(err, store.ErrConflict) || try == 5 {
			return err
		}
		switch v, err := c.deps.Store.GetEnrolment(ctx, name); {
		case err == nil:
			known = enrolled{v.Value, v.ModRevision}
		case fault.IsReason(err, meshv1.ErrorReason_RESOURCE_NOT_FOUND):
			known = enrolled{}
		default:
			return err
		}
	}
}

func (c *Controller) logEnrolment(before, after *statev1.Enrolment) {
	switch {
	case before == nil:
		c.log.Info("prober enrolled", "prober", after.GetName(), "datacenter", after.GetDatacenter(), "build", after.GetBuild())
		return
	case before.GetDatacenter() == after.GetDatacenter() && before.GetBuild() == after.GetBuild():
		c.log.Info("prober has other failure domains", "prober", after.GetName(), "datacenter", after.GetDatacenter(),
			"domains", domain.Of(after.GetDatacenter(), after.GetBuild(), after.GetLabels(), after.GetObserved()))
		return
	}
	c.log.Info("prober came back with another identity", "prober", after.GetName(), "datacenter", after.GetDatacenter(), "build", after.GetBuild(),
		"datacenter_before", before.GetDatacenter(), "build_before", before.GetBuild())
}

// observeEvery is how often what is seen of a prober may be written when nothing else of it has changed: one behind an address that changes with every session, or that
// two servers see differently, must not write to etcd with each. Until then what was written last counts.
const observeEvery = 10 * time.Minute

// observedAnew tells whether what is seen of a prober is to be written.
func observedAnew(e *statev1.Enrolment, observed map[string]string, now time.Time) bool {
	return !maps.Equal(e.GetObserved(), observed) && now.Sub(e.GetObservedTime().AsTime()) >= observeEvery
}

func sameIdentity(e *statev1.Enrolment, h *meshv1.Hello) bool {
	return e.GetDatacenter() == h.GetDatacenter() && e.GetBuild() == h.GetBuild() && maps.Equal(e.GetLabels(), h.GetLabels()) &&
		slices.Equal(e.GetCapabilities(), h.GetCapabilities())
}

// Cast counts results of a session as votes, passes them on to the other servers, and gives those of ad-hoc runs to whoever waits for them. Backlog must not be cast.
// Neither the slice nor the results may be changed afterwards.
func (c *Controller) Cast(prober string, results []*meshv1.Result) {
	events := make([]scheduler.Event, 0, len(results))
	for _, r := range results {
		events = append(events, scheduler.Cast{Prober: prober, Result: r})
	}
	c.count(results, events, true)
}

// count applies votes; own are those of this server's sessions. SLOW ones and the probers' own errors are passed on as well: the leader asks others because of the one,
// and the mind of every server knows by the other that a prober is at fault.
func (c *Controller) count(results []*meshv1.Result, events []scheduler.Event, own bool) {
	begin := time.Now()
	shareTexts(results)
	c.mu.Lock()
	if own && c.deps.Peers != nil {
		c.deps.Peers.Votes(results)
	}
	for _, r := range results {
		if r.GetRunId() != "" && r.GetOutcome() != meshv1.Result_SLOW {
			c.answerLocked(r)
		}
	}
	notes := c.applyLocked(events)
	c.mu.Unlock()
	c.m.cast(results, begin, own)
	c.tell(notes)
}

// RunRefused says that a prober of this server will not do a run, whichever server asked for it.
func (c *Controller) RunRefused(prober, runID, reason string) {
	if c.deps.Peers != nil {
		c.deps.Peers.Refuse(prober, runID, reason)
	}
	c.refused(prober, runID, reason)
}

// refused tells the mind, and whoever waits, of a run that will not be done.
func (c *Controller) refused(prober, runID, reason string) {
	c.mu.Lock()
	var events []scheduler.Event
	c.refuseLocked(prober, runID, reason)
	// While a prober moves it is asked at two servers, and one of them may still bring it the run.
	if len(c.presences.of(prober)) < 2 {
		events = append(events, scheduler.RunRefused{Prober: prober, RunID: runID, Reason: reason})
	}
	notes := c.applyLocked(events)
	c.mu.Unlock()
	c.tell(notes)
}

// Expected is the digest of what a prober should run, and the revision of the store that this follows from.
func (c *Controller) Expected(prober string) (digest uint64, revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var d assignment.Digest
	for check, a := range c.mind.Assignments(prober) {
		d.Add(check, a.GetFingerprint())
	}
	return uint64(d), c.revision
}

// Difference is what takes a prober from what it holds (fingerprints by check) to what it should run.
type Difference struct {
	Upserts  []*meshv1.Assignment
	Removals []string
	// Revision is the store's revision that the difference leads to.
	Revision int64
	// Digest is that of the whole set afterwards.
	Digest uint64
}

// Difference compares what a prober holds with what it should run.
func (c *Controller) Difference(prober string, held map[string]uint64) Difference {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.mind.Assignments(prober)
	d := Difference{Revision: c.revision}
	var digest assignment.Digest
	for check, a := range want {
		digest.Add(check, a.GetFingerprint())
		if f, ok := held[check]; !ok || f != a.GetFingerprint() {
			d.Upserts = append(d.Upserts, a)
		}
	}
	for check := range held {
		if want[check] == nil {
			d.Removals = append(d.Removals, check)
		}
	}
	d.Digest = uint64(digest)
	slices.Sort(d.Removals)
	slices.SortFunc(d.Upserts, func(a, b *meshv1.Assignment) int { return compare(a.GetCheck().GetName(), b.GetCheck().GetName()) })
	return d
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// VerifyShrink reads the store anew and tells whether a prober may really drop the checks: each must be deleted, paused, or run by others.
func (c *Controller) VerifyShrink(ctx context.Context, removals []string) error {
	exists := map[string]*meshv1.Check{}
	for after := ""; ; {
		page, _, err := c.deps.Store.ListChecks(ctx, after, 1000)
		if err != nil {
			return fmt.Errorf("read the checks anew: %w", err)
		}
		for _, k := range page {
			exists[k.GetName()] = k
			after = k.GetName()
		}
		if len(page) < 1000 {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range removals {
		k := exists[name]
		if k == nil || k.GetPaused() {
			continue
		}
		if st, ok := c.mind.Status(name, time.Now(), false); !ok || st.GetProbers() == 0 {
			return fmt.Errorf("%s exists and no other prober runs it", name)
		}
	}
	return nil
}

// Probers gives every enrolled prober with what its session knows, sorted by name.
func (c *Controller) Probers() []*meshv1.Prober {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*meshv1.Prober
	for _, n := range c.mind.Probers() {
		if p := c.proberLocked(n); p != nil {
			all = append(all, p)
		}
	}
	return all
}

// Prober gives one prober.
func (c *Controller) Prober(name string) (*meshv1.Prober, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.proberLocked(spec.ID(name))
	return p, p != nil
}

func (c *Controller) proberLocked(name string) *meshv1.Prober {
	p, ok := c.mind.Prober(name)
	if !ok {
		return nil
	}
	p.Domains = maps.Clone(p.GetDomains())
	p.Etag = fmt.Sprint(c.enrolments[name].mod)
	h := c.presences.newest(name)
	if h == nil {
		return p
	}
	f := h.facts()
	p.BootId, p.Refusals, p.Revision, p.InSync, p.Spooled, p.Dropped = h.boot, f.Refusals, f.Revision, f.InSync, f.Spooled, f.Dropped
	p.Canaries = f.Canaries
	if f.Mistimed != 0 {
		p.Mistimed = durationpb.New(f.Mistimed)
	}
	p.ClockOffset, p.RoundTripTime = durationpb.New(f.ClockOffset), durationpb.New(f.RoundTrip)
	return p
}
