package store

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Batch is what a follower is told at once.
type Batch struct {
	// Snapshot is true when Events are all there is: whatever the follower held and is not among them is gone.
	Snapshot bool
	// Revision is the etcd revision up to which the follower knows everything after this batch.
	Revision int64
	// Events are in the order of their revisions. A batch that is no snapshot may be empty: only the revision has moved on.
	Events []Event
}

// Event is a value as it was written, or that it is gone.
type Event struct {
	// Kind says what Value is.
	Kind Kind
	// Name is the resource: "checks/shop", "receivers/ops", "probers/fra-1", "servers/a", "builds/1.4.2", "policies/builds", "incidents/01...", the datacenter of a table, the id
	// of an outbox entry, "leader".
	Name string
	// Subject is set for incidents only: the check, or "_mesh-<reason>".
	Subject string
	// Value is a *meshv1.Check, *meshv1.Receiver, *statev1.Enrolment, *statev1.PlacementTable, *statev1.StoredIncident, *statev1.OutboxEntry,
	// *statev1.ServerRecord, *meshv1.Build, *meshv1.BuildPolicy or *statev1.LeaderRecord, the follower's own; nil when it was deleted.
	Value proto.Message
	// ModRevision is the revision of the change, also of a deletion; CreateRevision is 0 for a deletion.
	ModRevision, CreateRevision int64
}

// followed is how the kinds are kept. The order is that of the snapshot's reading, not of its events.
func followed() []followedKind {
	return []followedKind{
		{KindCheck, checkPrefix, spec.Checks + "/", func() proto.Message { return &meshv1.Check{} }},
		{KindReceiver, receiverPrefix, spec.Receivers + "/", func() proto.Message { return &meshv1.Receiver{} }},
		{KindEnrolment, enrolmentPrefix, spec.Probers + "/", func() proto.Message { return &statev1.Enrolment{} }},
		{KindTable, tablePrefix, "", func() proto.Message { return &statev1.PlacementTable{} }},
		{KindIncident, openPrefix, "", func() proto.Message { return &statev1.StoredIncident{} }},
		{KindOutbox, outboxPrefix, "", func() proto.Message { return &statev1.OutboxEntry{} }},
		{KindServer, serverPrefix, spec.Servers + "/", func() proto.Message { return &statev1.ServerRecord{} }},
		{KindBuild, buildPrefix, spec.Builds + "/", func() proto.Message { return &meshv1.Build{} }},
		{KindBuildPolicy, buildPolicyKey, BuildPolicyName, func() proto.Message { return &meshv1.BuildPolicy{} }},
		{KindLeader, leaderPrefix, "", func() proto.Message { return &statev1.LeaderRecord{} }},
	}
}

type followedKind struct {
	kind       Kind
	prefix     string
	collection string
	fresh      func() proto.Message
}

// Reasons to begin again with a snapshot.
var (
	errCompacted = errors.New("the changes since then are compacted")
	errDiverged  = errors.New("what was handed over differs from etcd")
)

// watchPulse is how often a watch is asked how far it is, and how long it may take to say anything: a half-dead member accepts a watch and is silent.
const watchPulse = 10 * time.Second

// callbackError ends Follow with what the callback returned.
type callbackError struct{ error }

// Follow calls f with a snapshot and then with every change, in the order of revisions and without a gap, one call at a time. When etcd has
// compacted what the follower missed, or the background comparison (Options.VerifyEvery) finds a difference, it begins again with a snapshot.
// While etcd has no leader or does not answer, it waits and takes up where it was. Changes wait in memory, unbounded, while f runs: f must not block
// for long. Follow ends only with the error of ctx or of f.
func (s *Store) Follow(ctx context.Context, f func(context.Context, Batch) error) error {
	w := &follower{s: s, kinds: followed(), f: f}
	if s.o.VerifyEvery > 0 {
		t := time.NewTicker(s.o.VerifyEvery)
		defer t.Stop()
		w.verify = t.C
	}
	wait := backoff{first: 50 * time.Millisecond, most: 5 * time.Second}
	reason := "first"
	for {
		err := w.snapshot(ctx, reason)
		for err == nil {
			var alive bool
			alive, err = w.watch(ctx)
			if alive {
				wait.reset()
			}
			if retriable(ctx, err) {
				s.m.reconnects.Add(ctx, 1)
				s.log.WarnContext(ctx, "watch of etcd broke, taking it up again", "revision", w.rev, "err", err)
				err = nil
				wait.sleep(ctx)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		var own callbackError
		switch {
		case errors.As(err, &own):
			return own.error
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errCompacted):
			reason = "compacted"
		case errors.Is(err, errDiverged):
			reason = "diverged"
		default:
			s.log.WarnContext(ctx, "cannot read the state from etcd, trying again", "err", err)
			wait.sleep(ctx)
		}
	}
}

// retriable tells whether a watch that ended so is taken up again where it was.
func retriable(ctx context.Context, err error) bool {
	var own callbackError
	return ctx.Err() == nil && !errors.As(err, &own) && !errors.Is(err, errCompacted) && !errors.Is(err, errDiverged)
}

// follower is the state of one Follow. Only its goroutine touches it.
type follower struct {
	s     *Store
	kinds []followedKind
	f     func(context.Context, Batch) error
	// rev is the revision up to which f was told everything.
	rev int64
	// verify fires when the next comparison is due, or a look at the one under way; nil: never.
	verify <-chan time.Time
	// watches counts the watches opened.
	watches int
	// held is what f was told, by key.
	held map[string]heldKey
	// check is the comparison under way, if one is.
	check *comparison
	// doubt is closed by the next doubt; before rested it is not listened to.
	doubt  <-chan struct{}
	rested time.Time
}

// heldKey is what the follower remembers of a key.
type heldKey struct {
	mod      int64
	incident string // the name of the open incident: a deletion does not carry it
}

// snapshot reads everything at one revision and hands it over.
func (w *follower) snapshot(ctx context.Context, reason string) error {
	doubt := w.s.doubts.next()
	var rev int64
	var kvs []*mvccpb.KeyValue
	for _, k := range w.kinds {
		r, err := w.s.scan(ctx, page{prefix: k.prefix, rev: rev}, "read the state", func(kv *mvccpb.KeyValue) { kvs = append(kvs, kv) })
		if err != nil {
			return err
		}
		rev = r
	}
	sort.Slice(kvs, func(i, j int) bool { return kvs[i].ModRevision < kvs[j].ModRevision })
	w.held, w.check, w.doubt = make(map[string]heldKey, len(kvs)), nil, doubt
	events := make([]Event, 0, len(kvs))
	for _, kv := range kvs {
		if e, ok := w.event(ctx, kv, false); ok {
			events = append(events, e)
		}
	}
	w.s.m.relists.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
	w.s.log.DebugContext(ctx, "state read from etcd", "reason", reason, "revision", rev, "keys", len(kvs))
	return w.emit(ctx, Batch{Snapshot: true, Revision: rev, Events: events})
}

func (w *follower) emit(ctx context.Context, b Batch) error {
	w.rev = b.Revision
	if err := w.f(ctx, b); err != nil {
		return callbackError{err}
	}
	return nil
}

// watch follows from the revision after w.rev until the watch breaks. alive tells whether it ever worked.
func (w *follower) watch(ctx context.Context) (alive bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.watches++
	watchCtx, ch, err := OpenWatch(ctx, w.s.client, fmt.Sprintf("follow-%p-%d", w, w.watches), Prefix, clientv3.WithPrefix(), clientv3.WithRev(w.rev+1),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	if err != nil {
		return false, err
	}
	pulse := time.NewTicker(watchPulse)
	defer pulse.Stop()
	doubt, rested, late := (<-chan struct{})(nil), time.After(time.Until(w.rested)), (<-chan time.Time)(nil)
	asked := false // whether the watch owes an answer since the last pulse
	for {
		select {
		case r, ok := <-ch:
			if !ok {
				return alive, fmt.Errorf("the watch ended at revision %d", w.rev)
			}
			if err := watchError(r); err != nil {
				return alive, err
			}
			alive, asked = true, false
			if err := w.changes(ctx, r); err != nil {
				return alive, err
			}
		case <-pulse.C:
			// What came while the callback was busy counts as an answer.
			if asked && len(ch) == 0 && !w.quiet(ctx) {
				return alive, fmt.Errorf("the watch has been silent for %s at revision %d", watchPulse, w.rev)
			}
			if err := w.askProgress(watchCtx); err != nil {
				return alive, err
			}
			asked = true
		case <-w.verify:
			if err := w.compare(ctx, watchCtx); err != nil {
				return alive, err
			}
		case <-doubt:
			if err := w.doubted(ctx, watchCtx); err != nil {
				return alive, err
			}
			doubt, rested, late = nil, time.After(time.Until(w.rested)), time.After(doubtPatience)
		case <-rested:
			doubt, rested = w.doubt, nil
		case <-late:
			late = nil
			switch {
			case w.check == nil:
			case len(ch) > 0, time.Since(w.check.since) < doubtPatience: // it has answered, or was asked a moment ago
				late = time.After(doubtPatience)
			default:
				return alive, w.stuck(ctx)
			}
		}
	}
}

// quiet tells whether the watch has nothing to say: etcd does not answer requests for progress before it has reached the watch's first revision, and when
// nothing is ever written it does not.
func (w *follower) quiet(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, watchPulse)
	defer cancel()
	r, err := w.s.client.Get(ctx, Prefix, clientv3.WithCountOnly())
	return err == nil && r.Header.Revision <= w.rev
}

// askProgress asks the watch how far it is; the answer comes through the watch.
func (w *follower) askProgress(watchCtx context.Context) error {
	ctx, cancel := context.WithTimeout(watchCtx, watchPulse)
	defer cancel()
	if err := w.s.client.RequestProgress(ctx); err != nil {
		return fmt.Errorf("the watch takes no requests at revision %d: %w", w.rev, err)
	}
	return nil
}

func watchError(r clientv3.WatchResponse) error {
	if r.CompactRevision != 0 {
		return errCompacted
	}
	err := r.Err()
	if errors.Is(err, rpctypes.ErrFutureRev) {
		// The cluster was restored from an older copy.
		return errDiverged
	}
	return err
}

// changes hands the events of one answer over.
func (w *follower) changes(ctx context.Context, r clientv3.WatchResponse) error {
	if len(r.Events) == 0 {
		// The header of an answer with events may run ahead of them; that of a progress notification is exact.
		if !r.IsProgressNotify() || r.Header.Revision <= w.rev {
			return nil
		}
		if err := w.emit(ctx, Batch{Revision: r.Header.Revision}); err != nil {
			return err
		}
		return w.settleCheck(ctx)
	}
	b := Batch{Revision: r.Events[len(r.Events)-1].Kv.ModRevision}
	for _, ev := range r.Events {
		if e, ok := w.event(ctx, ev.Kv, ev.Type == mvccpb.Event_DELETE); ok {
			b.Events = append(b.Events, e)
		}
	}
	if err := w.emit(ctx, b); err != nil {
		return err
	}
	return w.settleCheck(ctx)
}

// event translates a key and remembers it. ok is false for keys that are not followed or cannot be decoded.
func (w *follower) event(ctx context.Context, kv *mvccpb.KeyValue, deleted bool) (e Event, ok bool) {
	key := string(kv.Key)
	k, ok := w.kindOf(key)
	if !ok {
		return Event{}, false
	}
	w.check.touched(key, kv.ModRevision)
	id := strings.TrimPrefix(key, k.prefix)
	e = Event{Kind: k.kind, Name: k.collection + id, ModRevision: kv.ModRevision}
	before := w.held[key]
	switch k.kind {
	case KindIncident:
		e.Name, e.Subject = before.incident, subjectName(id)
	case KindLeader:
		e.Name = "leader"
	}
	if deleted {
		delete(w.held, key)
		return e, true
	}
	w.held[key] = heldKey{mod: kv.ModRevision, incident: before.incident}
	value := k.fresh()
	if err := decode(kv, value); err != nil {
		w.s.m.broken.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", string(k.kind))))
		w.s.log.ErrorContext(ctx, "value in etcd cannot be decoded and is left out", "key", key, "revision", kv.ModRevision, "err", err)
		return Event{}, false
	}
	e.Value, e.CreateRevision = value, kv.CreateRevision
	w.stamp(&e, key, kv)
	return e, true
}

// stamp fills in what follows from the key's revisions.
func (w *follower) stamp(e *Event, key string, kv *mvccpb.KeyValue) {
	switch v := e.Value.(type) {
	case *meshv1.Check:
		w.s.checks().stamp(v, kv)
	case *meshv1.Receiver:
		w.s.receivers().stamp(v, kv)
	case *statev1.StoredIncident:
		if v.Incident == nil {
			v.Incident = &meshv1.Incident{}
		}
		v.Incident.Etag, e.Name = etagOf(kv.ModRevision), v.Incident.Name
		w.held[key] = heldKey{mod: kv.ModRevision, incident: v.Incident.Name}
	}
}

func (w *follower) kindOf(key string) (followedKind, bool) {
	for _, k := range w.kinds {
		if strings.HasPrefix(key, k.prefix) {
			return k, true
		}
	}
	return followedKind{}, false
}
