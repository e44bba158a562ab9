package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/scheduler/alert"
)

// isCheck tells whether a key of an open incident is that of a check.
func isCheck(key string) bool { return !scheduler.IsMesh(key) && !scheduler.IsGroup(key) }

// crowd makes checks name-1 to name-n.
func (w *World) crowd(name string, n int, options []string) {
	for i := range n {
		c := newCheck(fmt.Sprint(name, "-", i+1), time.Minute, 10*time.Second, 0, 0)
		for _, o := range options {
			k, v, _ := strings.Cut(o, "=")
			switch k {
			case "host":
				c.Uri = fmt.Sprintf("tcp://%s:%d", v, 1000+i)
			case "interval":
				d, _ := time.ParseDuration(v)
				c.Interval, c.Timeout = durationpb.New(d), durationpb.New(min(d, c.Timeout.AsDuration()))
			case "probers":
				p, _ := strconv.Atoi(v)
				c.Probers = int32(p)
			case "quorum":
				q, _ := strconv.Atoi(v)
				c.Quorum = int32(q)
			case "receiver":
				c.Receivers = append(c.Receivers, "receivers/"+v)
			default:
				if c.Labels == nil {
					c.Labels = map[string]string{}
				}
				c.Labels[k] = v
			}
		}
		w.putCheck(c)
	}
}

// setTargets changes many targets at once.
func (w *World) setTargets(uris []string, m mode, from ...string) {
	trace := w.opt.Trace
	w.opt.Trace = nil
	for _, u := range uris {
		w.setTarget(u, m, from...)
	}
	w.opt.Trace = trace
	w.log("%d targets are %s", len(uris), m)
}

// joined checks the incident of a check that opens as part of a group: each of its receivers must be owed, or have been told, the opening of the group.
func (w *World) joined(key string, i *meshv1.Incident) {
	if i.GetGroup() == "" || !isCheck(key) {
		return
	}
	w.joins++
	for _, r := range i.GetReceivers() {
		if id := alert.Key(spec.ID(i.GetGroup()), "OPENED", spec.ID(r)); w.hook.effects[id] == 0 && w.store.outbox[id] == nil {
			w.violate("%s opens as part of %s, of which %s was never told", key, i.GetGroup(), r)
		}
	}
}

// auditGroups: what is part of a group that is over is told of by itself, and a group that nothing is part of ends.
func (w *World) auditGroups() {
	open := map[string]bool{}
	for key, i := range w.store.open {
		if scheduler.IsGroup(key) {
			open[i.value.GetIncident().GetName()] = true
		}
	}
	busy := map[string]bool{}
	for _, key := range sorted(w.store.open) {
		i := w.store.open[key].value.GetIncident()
		if i.GetGroup() == "" || !isCheck(key) {
			delete(w.orphans, i.GetName())
			continue
		}
		busy[i.GetGroup()] = true
		if open[i.GetGroup()] {
			delete(w.orphans, i.GetName())
			continue
		}
		if w.orphans[i.GetName()].IsZero() {
			w.orphans[i.GetName()] = w.now
		}
		if since := w.latest(w.orphans[i.GetName()], w.leaderSince); w.calmLeader() && w.now.Sub(since) > slack {
			w.violate("%s is part of %s, which is over since %s, and nobody is told of it", key, i.GetGroup(), since.Sub(epoch))
		}
	}
	for _, key := range sorted(w.store.open) {
		i := w.store.open[key].value.GetIncident()
		if !scheduler.IsGroup(key) || busy[i.GetName()] {
			delete(w.empty, i.GetName())
			continue
		}
		if w.empty[i.GetName()].IsZero() {
			w.empty[i.GetName()] = w.now
		}
		if since := w.latest(w.empty[i.GetName()], w.leaderSince); w.calmLeader() && w.now.Sub(since) > time.Minute {
			w.violate("%s (%s) has no check since %s and is open", i.GetName(), i.GetSummary(), since.Sub(epoch))
		}
	}
}

// CrowdChaos is Chaos for checks that turn together: racks of a dozen checks each, whose targets fail and recover at once, now and then all racks, while servers, probers and
// receivers fail too. Some checks have a receiver of their own.
func CrowdChaos(o Options, d time.Duration) Report {
	w, faults := newChaos(o), 0
	w.store.putReceiver(&meshv1.Receiver{Name: "receivers/team"})
	for rack := range 3 {
		n := w.datacenters()
		common := []string{fmt.Sprint("rack=", rack), fmt.Sprint("probers=", n), fmt.Sprint("quorum=", 1+w.rng.IntN(n))}
		w.crowd(fmt.Sprint("r", rack), 6+w.rng.IntN(8), append(common, "interval=15s"))
		w.crowd(fmt.Sprint("t", rack), w.rng.IntN(5), append(common, "interval=30s", "receiver=team"))
	}
	w.Run(time.Minute)
	for end := w.now.Add(d); w.now.Before(end) && len(w.violations) == 0; {
		w.Run(time.Duration(w.rng.Int64N(int64(40 * time.Second))))
		if w.chance(0.5) {
			w.fault()
		} else {
			w.turnRack(w.rng.IntN(4), []mode{modeUp, modeUp, modeDown, modeBlackhole}[w.rng.IntN(4)])
		}
		faults++
	}
	w.mend()
	w.Run(10 * time.Minute)
	w.settled()
	r := Report{Violations: w.violations, Effects: len(w.hook.effects), Repeats: w.hook.repeats, Runs: w.runs, Faults: faults, Joined: w.joins}
	for _, n := range sorted(w.truth) {
		r.Opened += len(w.truth[n].openedAt)
	}
	return r
}

// turnRack changes the targets of a rack, each with its own small exception; of all racks for a rack that there is not.
func (w *World) turnRack(rack int, m mode) {
	var uris []string
	for _, n := range sorted(w.store.checks) {
		c := w.store.checks[n].value
		if r := c.GetLabels()["rack"]; r != "" && (rack == 3 || r == fmt.Sprint(rack)) && w.chance(0.95) {
			uris = append(uris, c.GetUri())
		}
	}
	w.setTargets(uris, m)
}
