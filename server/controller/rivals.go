package controller

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/probemesh/probemesh/internal/domain"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// rivalry is two processes of one name, at this server and at another.
type rivalry struct {
	prober     string
	mine       held
	theirs     held
	mineYields bool
}

// rivalLocked tells whether another server has a session of another process of a prober than this one.
func (c *Controller) rivalLocked(prober string, theirs *held) (rivalry, bool) {
	mine := c.heldLocked(prober)
	if mine == nil || mine.boot == theirs.boot {
		return rivalry{}, false
	}
	return rivalry{prober, *mine, *theirs, mine.yields(theirs)}, true
}

// settle ends those sessions of this server whose name another process had first. Two servers may both take a process of one name while they do not hear each other.
func (c *Controller) settle(rivals []rivalry) {
	for _, r := range rivals {
		if !r.mineYields {
			signal(c.outlived)
			continue
		}
		c.m.rivals.Add(context.Background(), 1)
		c.log.Warn("two processes have the name of one prober; the one that came later is turned away", "prober", spec.Name(spec.Probers, r.prober), "boot_id", r.mine.boot,
			"other_boot_id", r.theirs.boot, "other_server", r.theirs.server)
		r.mine.session.End("another process (boot " + r.theirs.boot + ") has had the name for longer, at " + r.theirs.server)
	}
}

// mendAfter lets a rivalry be settled before the enrolment is looked at.
const mendAfter = time.Second

// lookEvery is how often enrolments are compared with what is seen of this server's probers, besides when a rival has gone: what could not be written when the session
// began, because it had been written a moment before, is written then.
const lookEvery = time.Minute

// mend writes anew, until ctx ends, the enrolments of this server's probers that a rival has changed, once it is known which of the two stays. Before
// that each server would undo what the other does.
func (c *Controller) mend(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-c.outlived:
			select {
			case <-ctx.Done():
				return
			case <-time.After(mendAfter):
			}
		}
		for _, s := range c.misenrolled() {
			h := s.hello
			if err := c.enrol(ctx, h, s.observed); err != nil && ctx.Err() == nil {
				c.log.Warn("an enrolment that another process changed could not be written anew; it is tried again", "prober", spec.Name(spec.Probers, h.GetProber()), "err", err)
				signal(c.outlived)
			}
		}
	}
}

// seen is what a prober said of itself, and what this server sees of it.
type seen struct {
	hello    *meshv1.Hello
	observed map[string]string
}

// misenrolled are those of this server's probers who are enrolled as something else.
func (c *Controller) misenrolled() []seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []seen
	for _, name := range slices.Sorted(maps.Keys(c.sessions)) {
		h := c.heldLocked(name)
		if h == nil {
			continue
		}
		observed := domain.Observe(h.session.Facts().Address, h.hello.GetMachine(), h.hello.GetCapabilities())
		if e := c.enrolments[name].record; e != nil && (!sameIdentity(e, h.hello) || observedAnew(e, observed, time.Now())) {
			list = append(list, seen{h.hello, observed})
		}
	}
	return list
}
