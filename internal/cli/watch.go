package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sort"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// pollEvery is how often kinds without a watch call are asked for.
	pollEvery = 2 * time.Second
	// relistEvery is how often checks are listed again while they are watched: their status comes at once, an edit of them within this time.
	relistEvery = 10 * time.Second
	// reconnectMax bounds the pause between two tries to watch again.
	reconnectMax = 5 * time.Second
)

// view is what a watch shows: it is told each change, and of breaks. Its methods are called by one goroutine at a time.
type view interface {
	// apply takes a change; synced says that what is held is complete.
	apply(ch change)
	// broken tells that the connection is lost, why, and when the next try is; an empty problem tells that it is back.
	broken(problem string, wait time.Duration)
	// tick is called every second.
	tick()
	// close leaves the screen in order.
	close()
}

// watch follows resources until ctx ends, through lost connections. It fails only when the first connection cannot be made or the server refuses.
func (a *app) watch(ctx context.Context, c *client, kind *resource, names []string, o getOptions) error {
	if kind.whole && o.filter != "" {
		return usagef("%s cannot be filtered; name them instead", kind.plural)
	}
	v := a.newView(kind, o)
	defer v.close()
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, done := make(chan any, 256), make(chan error, 1)
	go func() { done <- a.follow(ctx, c, kind, o.filter, changes) }()
	defer func() {
		cancel()
		for range changes { // until the follower has ended
		}
	}()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case ev, ok := <-changes:
			if !ok {
				return <-done
			}
			switch ev := ev.(type) {
			case change:
				if ev.synced || len(wanted) == 0 || wanted[ev.name] {
					v.apply(ev)
				}
			case interruption:
				v.broken(ev.problem, ev.wait)
			}
		case <-ticker.C:
			v.tick()
		}
	}
}

// interruption is a break of a watch; with an empty problem it is over.
type interruption struct {
	problem string
	wait    time.Duration
}

// follow watches again and again, and sends changes and interruptions until ctx ends or the server refuses. It closes out.
func (a *app) follow(ctx context.Context, c *client, kind *resource, filter string, out chan<- any) error {
	defer close(out)
	watch := kind.watch
	if watch == nil {
		watch = a.poll(kind)
	}
	send := func(ev any) error {
		select {
		case out <- ev:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	held := map[string]bool{}
	wait, ever, lost := time.Duration(0), false, false
	for {
		seen := map[string]bool{}
		synced := false
		err := watch(ctx, c, filter, func(ch change) error {
			if lost {
				lost = false
				if err := send(interruption{}); err != nil {
					return err
				}
			}
			ever, wait = true, 0
			return forward(ch, held, seen, &synced, send)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case !ever || !temporary(err):
			return a.explain(err)
		}
		wait = min(max(2*wait, 250*time.Millisecond), reconnectMax)
		pause := wait/2 + rand.N(wait/2+1)
		lost = true
		if send(interruption{problem: a.explain(err).Error(), wait: pause}) != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// forward passes a change on; at the end of a snapshot it first tells what of the time before is gone.
func forward(ch change, held, seen map[string]bool, synced *bool, send func(any) error) error {
	switch {
	case ch.synced:
		*synced = true
		for name := range held {
			if !seen[name] {
				delete(held, name)
				if err := send(change{name: name}); err != nil {
					return err
				}
			}
		}
	case ch.item == nil:
		delete(held, ch.name)
	default:
		held[ch.name] = true
		if !*synced {
			seen[ch.name] = true
		}
	}
	return send(ch)
}

// temporary tells whether a watch that ended so may be tried again.
func temporary(err error) bool {
	if err == nil || errors.Is(err, io.EOF) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DataLoss, codes.Aborted, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.DeadlineExceeded, codes.Canceled:
		return !fault.IsReason(err, meshv1.ErrorReason_FILTER_INVALID)
	}
	return false
}

// poll is the watch of a kind that has none: its list, every two seconds.
func (a *app) poll(r *resource) func(context.Context, *client, string, func(change) error) error {
	return func(ctx context.Context, c *client, filter string, emit func(change) error) error {
		before := map[string]proto.Message{}
		for first := true; ; first = false {
			items, err := r.all(ctx, a, c, filter)
			if err != nil {
				return err
			}
			now := map[string]proto.Message{}
			for _, m := range items {
				now[nameField(m)] = m
			}
			if err := emitDifference(before, now, emit); err != nil {
				return err
			}
			if first {
				if err := emit(change{synced: true}); err != nil {
					return err
				}
			}
			before = now
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pollEvery):
			}
		}
	}
}

// emitDifference tells what is new, different or gone, by name.
func emitDifference(before, now map[string]proto.Message, emit func(change) error) error {
	for _, name := range sortedNames(now) {
		if old, ok := before[name]; ok && proto.Equal(old, now[name]) {
			continue
		}
		if err := emit(change{name: name, item: now[name]}); err != nil {
			return err
		}
	}
	for _, name := range sortedNames(before) {
		if _, ok := now[name]; !ok {
			if err := emit(change{name: name}); err != nil {
				return err
			}
		}
	}
	return nil
}

func sortedNames(m map[string]proto.Message) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func watchStatuses(ctx context.Context, c *client, filter string, emit func(change) error) error {
	stream, err := c.statuses.WatchStatuses(ctx, &meshv1.WatchStatusesRequest{Filter: filter})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		ch := change{name: m.GetStatus().GetCheck(), item: m.GetStatus(), synced: m.GetSynced()}
		if m.GetRemoved() {
			ch.item = nil
		}
		if err := emit(ch); err != nil {
			return err
		}
	}
}

func watchIncidents(ctx context.Context, c *client, filter string, emit func(change) error) error {
	stream, err := c.incidents.WatchIncidents(ctx, &meshv1.WatchIncidentsRequest{Filter: filter})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := emit(change{name: m.GetIncident().GetName(), item: m.GetIncident(), synced: m.GetSynced()}); err != nil {
			return err
		}
	}
}

// watchChecks follows the statuses, and the checks themselves by listing them now and then and when an unknown one appears.
func watchChecks(ctx context.Context, c *client, filter string, emit func(change) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	checks := map[string]proto.Message{}
	listed := time.Time{}
	relist := func() error {
		now, err := listChecks(ctx, c, filter)
		if err != nil {
			return err
		}
		before := checks
		checks, listed = now, time.Now()
		return emitDifference(before, now, emit)
	}
	if err := relist(); err != nil {
		return err
	}
	if err := emit(change{synced: true}); err != nil {
		return err
	}
	statuses := make(chan change, 64)
	failed := make(chan error, 1)
	go func() {
		failed <- watchStatuses(ctx, c, filter, func(ch change) error {
			select {
			case statuses <- ch:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	end := func(err error) error { cancel(); <-failed; return err }
	ticker := time.NewTicker(relistEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-ticker.C:
			if err := relist(); err != nil {
				return end(err)
			}
		case ch := <-statuses:
			known, ok := checks[ch.name].(*meshv1.Check)
			switch {
			case ch.synced:
			case ch.item != nil && ok:
				next := proto.CloneOf(known)
				next.Status = withoutVotes(ch.item.(*meshv1.CheckStatus))
				if proto.Equal(next, known) {
					continue
				}
				checks[ch.name] = next
				if err := emit(change{name: ch.name, item: next}); err != nil {
					return end(err)
				}
			case ok || (ch.item != nil && time.Since(listed) > time.Second):
				if err := relist(); err != nil {
					return end(err)
				}
			}
		}
	}
}

// withoutVotes is a status as ListChecks has it.
func withoutVotes(s *meshv1.CheckStatus) *meshv1.CheckStatus {
	s = proto.CloneOf(s)
	s.Votes = nil
	return s
}

func listChecks(ctx context.Context, c *client, filter string) (map[string]proto.Message, error) {
	out := map[string]proto.Message{}
	for token := ""; ; {
		page, err := c.checks.ListChecks(ctx, &meshv1.ListChecksRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		if err != nil {
			return nil, err
		}
		for _, check := range page.GetChecks() {
			out[check.GetName()] = check
		}
		if token = page.GetNextPageToken(); token == "" {
			return out, nil
		}
	}
}

// isNotFound tells whether the server says that a resource does not exist.
func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// since writes a pause for people.
func since(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// isUnreachable tells whether there is no connection to a server.
func isUnreachable(err error) bool {
	e, ok := fault.From(err)
	return ok && e.Code == codes.Unavailable && e.Reason == meshv1.ErrorReason_ERROR_REASON_UNSPECIFIED
}
