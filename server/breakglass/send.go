package breakglass

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

const (
	// turn is how long each server waits for those that come before it.
	turn = 3 * time.Second
	// maxFlying bounds the messages under way.
	maxFlying = 8
	// maxPause bounds the pause between attempts; the first is a second.
	maxPause = 30 * time.Second
	// maxNamed bounds the checks that a message about many names.
	maxNamed = 100
	// defaultGiveUp is Receiver.give_up_after when it is unset.
	defaultGiveUp = 24 * time.Hour
)

// task is a message for one receiver.
type task struct {
	receiver   *meshv1.Receiver
	digest     string
	transition meshv1.Notification_Transition
	items      []scheduler.BreakGlass
	created    time.Time
	due        time.Time
	failures   int
	flying     bool
	problem    string
}

// sort puts what the mind wished for where it belongs, and makes tasks of what is to be told now.
func (g *Glass) sort(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused {
		g.refused = false
		g.log.Error("too many outages at once: some are not told of", "most", inboxMost)
	}
	changed := false
	for _, a := range g.inbox {
		switch a := a.(type) {
		case scheduler.BreakGlass:
			g.wishLocked(now, a)
		case scheduler.OutageJoined:
			e := g.entries[a.Key]
			changed = changed || e != nil && len(e.outage.GetDeliveries()) > 0 && !e.joined
			g.joinedLocked(a)
		}
	}
	g.inbox = nil
	for t, w := range g.windows {
		for _, batch := range w.flush(now) {
			for _, r := range g.receivers {
				if !r.GetPaused() {
					g.tasks = append(g.tasks, &task{receiver: r, digest: scheduler.URLDigest(r), transition: t, items: batch, created: now, due: now})
				}
			}
		}
	}
	if changed {
		signal(g.changed)
	}
}

func (g *Glass) wishLocked(now time.Time, b scheduler.BreakGlass) {
	t := b.Notification.GetTransition()
	if b.Again {
		g.againLocked(now, b)
		return
	}
	e := g.entries[b.Outage.Key]
	if e == nil {
		e = &entry{outage: &peerv1.Outage{}}
		g.entries[b.Outage.Key] = e
	}
	mine := e.outage.GetDeliveries()
	e.outage, e.joined = protoOf(b.Outage), false
	e.outage.Deliveries, e.outage.Delivered = mine, len(mine) > 0
	w := g.windows[t]
	if w == nil {
		w = &window{}
		g.windows[t] = w
	}
	w.add(now, b)
	g.log.Warn("outage without etcd", "check", b.Outage.Check, "transition", t.String(), "key", b.Outage.Key, "summary", b.Notification.GetSummary())
}

// againLocked tells those of the end that this server told of the beginning and nobody else tells of the end.
func (g *Glass) againLocked(now time.Time, b scheduler.BreakGlass) {
	e := g.entries[b.Outage.Key]
	if e == nil {
		return
	}
	for _, r := range g.receivers {
		digest := scheduler.URLDigest(r)
		covered := slices.Contains(b.Covered, r.GetName()) || slices.Contains(b.Covered, digest)
		mine := e.outage.GetDeliveries()
		if covered || r.GetPaused() || !has(mine, r.GetName(), digest, meshv1.Notification_OPENED) || has(mine, r.GetName(), digest, meshv1.Notification_RESOLVED) {
			continue
		}
		g.tasks = append(g.tasks, &task{receiver: r, digest: digest, transition: meshv1.Notification_RESOLVED, items: []scheduler.BreakGlass{b}, created: now, due: now})
	}
}

func (g *Glass) joinedLocked(a scheduler.OutageJoined) {
	if e := g.entries[a.Key]; a.Incident != "" && e != nil {
		e.joined = true
		g.dropLocked(a.Key)
		g.log.Info("an outage became an incident", "check", a.Check, "key", a.Key, "incident", a.Incident)
		return
	}
	g.forgetLocked(a.Key)
}

// dropLocked takes an outage out of every message that waits.
func (g *Glass) dropLocked(key string) {
	for _, w := range g.windows {
		w.drop(key)
	}
	for _, t := range g.tasks {
		if t.flying {
			continue
		}
		t.items = slices.DeleteFunc(slices.Clone(t.items), func(b scheduler.BreakGlass) bool { return b.Outage.Key == key && !b.Again })
	}
	delete(g.others, key)
}

func (g *Glass) forgetLocked(key string) {
	g.dropLocked(key)
	delete(g.entries, key)
}

// dispatch begins every message whose time has come.
func (g *Glass) dispatch(ctx context.Context, now time.Time, j judgement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	kept := g.tasks[:0]
	for _, t := range g.tasks {
		if !t.flying {
			t.items = slices.DeleteFunc(slices.Clone(t.items), func(b scheduler.BreakGlass) bool { return !b.Again && g.toldLocked(b.Outage.Key, t) })
			if len(t.items) == 0 {
				continue
			}
			if give := giveUp(t.receiver); now.Sub(t.created) >= give && t.failures > 0 {
				g.m.sent(ctx, t.transition, "dropped")
				g.log.Error("break-glass message given up", "receiver", t.receiver.GetName(), "after", give, "err", t.problem)
				continue
			}
		}
		kept = append(kept, t)
	}
	clear(g.tasks[len(kept):])
	g.tasks = kept
	for _, t := range g.tasks {
		if g.flying >= maxFlying || ctx.Err() != nil {
			return
		}
		if !t.flying && !now.Before(t.due) && g.mayLocked(t, now, j) {
			g.sendLocked(ctx, t, now, j)
		}
	}
}

// mayLocked tells whether it is this server's turn, and the receiver knows of the beginning before it hears of the end.
func (g *Glass) mayLocked(t *task, now time.Time, j judgement) bool {
	if t.items[0].Again {
		return true
	}
	if !j.lost || now.Sub(t.created) < time.Duration(j.rank)*turn {
		return false
	}
	if t.transition == meshv1.Notification_OPENED {
		return true
	}
	for _, o := range g.tasks {
		if o == t || o.transition != meshv1.Notification_OPENED || o.receiver.GetName() != t.receiver.GetName() {
			continue
		}
		for _, b := range o.items {
			for _, mine := range t.items {
				if b.Outage.Key == mine.Outage.Key {
					return false
				}
			}
		}
	}
	return true
}

// toldLocked tells whether the receiver of a task has been told already, by whichever server.
func (g *Glass) toldLocked(key string, t *task) bool {
	if has(g.others[key], t.receiver.GetName(), t.digest, t.transition) {
		return true
	}
	e := g.entries[key]
	return e != nil && has(e.outage.GetDeliveries(), t.receiver.GetName(), t.digest, t.transition)
}

// sendLocked begins one attempt.
func (g *Glass) sendLocked(ctx context.Context, t *task, now time.Time, j judgement) {
	n, base := message(t, j.since)
	n.Receiver, n.Attempt = t.receiver.GetName(), int32(t.failures+1)
	key := base + "." + t.transition.String() + "." + spec.ID(t.receiver.GetName())
	t.flying = true
	blind := 1
	if t.items[0].Again {
		blind = 0
	}
	g.flying++
	g.blind += blind
	g.work.Go(func() {
		a := g.deps.Send(ctx, t.receiver, key, n)
		g.took(ctx, t, key, a, blind)
	})
}

// took notes what came of an attempt.
func (g *Glass) took(ctx context.Context, t *task, key string, a Answer, blind int) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	t.flying = false
	g.flying--
	g.blind -= blind
	if !a.Delivered {
		t.failures++
		pause := min(time.Second<<min(t.failures-1, 10), maxPause)
		t.due = now.Add(pause/2 + rand.N(pause/2+1))
		if ctx.Err() == nil {
			g.m.sent(ctx, t.transition, "failed")
			if a.Problem != t.problem {
				g.log.Warn("break-glass message not delivered, trying again", "receiver", t.receiver.GetName(), "transition", t.transition.String(), "err", a.Problem)
			}
		}
		t.problem = a.Problem
		return
	}
	g.m.sent(ctx, t.transition, "delivered")
	g.log.Warn("break-glass message delivered", "receiver", t.receiver.GetName(), "transition", t.transition.String(), "key", key, "outages", len(t.items))
	for _, b := range t.items {
		if e := g.entries[b.Outage.Key]; e != nil {
			e.outage.Delivered = true
			e.outage.Deliveries = append(e.outage.Deliveries, &peerv1.OutageDelivery{
				Receiver: t.receiver.GetName(), UrlDigest: t.digest, Transition: t.transition, IdempotencyKey: key, Time: timestamppb.New(now), Server: g.name,
			})
		}
	}
	t.items = nil // done; the next dispatch takes it away
	signal(g.changed)
	signal(g.wake)
}

// message is what is told of the outages of a task, and what its idempotency key begins with: the key of the outage, or one made of all of theirs.
func message(t *task, since time.Time) (*meshv1.Notification, string) {
	why := "Sent without etcd, which has had no quorum since " + since.UTC().Format("15:04:05 MST") + ": "
	if len(t.items) == 1 {
		b := t.items[0]
		n := proto.CloneOf(b.Notification)
		if b.Again {
			why = "Told of the beginning without etcd, so also of the end: "
		}
		n.Summary = why + n.GetSummary()
		return n, b.Outage.Key
	}
	var keys, checks []string
	n := &meshv1.Notification{Transition: t.transition, BreakGlass: true, DecideTime: t.items[0].Notification.GetDecideTime(), AffectedCount: int32(len(t.items))}
	for _, b := range t.items {
		keys, checks = append(keys, b.Outage.Key), append(checks, b.Outage.Check)
		if s := b.Notification.GetStartTime(); n.StartTime == nil || s.AsTime().Before(n.GetStartTime().AsTime()) {
			n.StartTime = s
		}
	}
	slices.Sort(keys)
	slices.Sort(checks)
	h := sha256.Sum256([]byte(strings.Join(keys, "\n")))
	n.BreakGlassKey = "outages-" + hex.EncodeToString(h[:10])
	n.AffectedChecks = checks[:min(len(checks), maxNamed)]
	what := "have failed"
	n.Verdict, n.Reason = meshv1.CheckStatus_DOWN, meshv1.CheckStatus_QUORUM_DOWN
	if t.transition == meshv1.Notification_RESOLVED {
		what, n.Verdict, n.Reason = "are not down any more", meshv1.CheckStatus_UP, meshv1.CheckStatus_QUORUM_UP
	}
	var some []string
	for _, c := range checks[:min(len(checks), 8)] {
		some = append(some, spec.ID(c))
	}
	n.Summary = fmt.Sprintf("%s%d checks %s: %s", why, len(checks), what, strings.Join(some, ", "))
	if more := len(checks) - len(some); more > 0 {
		n.Summary += fmt.Sprintf(" and %d more", more)
	}
	n.Summary += "."
	return n, n.BreakGlassKey
}

func giveUp(r *meshv1.Receiver) time.Duration {
	if d := r.GetGiveUpAfter(); d != nil {
		return d.AsDuration()
	}
	return defaultGiveUp
}

func sorted[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
