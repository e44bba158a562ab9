package drill

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Watched says what is watched and where.
type Watched struct {
	// Targets is how many targets there are, 1 or more, each watched by a check of its own. TCP of them are TCP listeners, the others web servers.
	Targets, TCP int
	// Host is where they listen, empty for 127.0.0.1: probers in networks of their own need an address that they can reach.
	Host string
	// Listen listens for them, nil as [net.Listen] does: a target inside of another network is listened for there.
	Listen func(network, address string) (net.Listener, error)
	// ReceiverURL is where notifications go; empty: the run's receiver at 127.0.0.1.
	ReceiverURL string
	// Prefix begins the names of the checks; empty: "t".
	Prefix string
}

// Watch makes n targets, has the mesh watch each by a check, and waits until all are UP by the votes of all their probers. From then on the history must be whole.
func (r *Run) Watch(ctx context.Context, m *Mesh, n int) ([]*Target, error) {
	return r.WatchMore(ctx, m, Watched{Targets: n, TCP: n / 4})
}

// WatchMore is Watch with all its choices.
func (r *Run) WatchMore(ctx context.Context, m *Mesh, w Watched) ([]*Target, error) {
	if w.Prefix == "" {
		w.Prefix = "t"
	}
	var targets []*Target
	for i := range w.Targets {
		t, err := r.newTarget(fmt.Sprintf("%s%02d", w.Prefix, i+1), w.Host, i >= w.Targets-w.TCP, w.Listen)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, r.Apply(ctx, m, w.ReceiverURL, targets)
}

// Apply has a mesh watch targets that exist, each by a check of its target's name, and waits until all are UP by the votes of all their probers. receiverURL is
// where it tells of them; empty: the run's receiver.
func (r *Run) Apply(ctx context.Context, m *Mesh, receiverURL string, targets []*Target) error {
	if receiverURL == "" {
		receiverURL = r.Receiver.URL
	}
	req := &meshv1.ApplyRequest{Receivers: []*meshv1.Receiver{{Name: "receivers/drill", Webhook: &meshv1.Webhook{Url: receiverURL}}}}
	for _, t := range targets {
		req.Checks = append(req.Checks, &meshv1.Check{
			Name: "checks/" + t.Check, Uri: t.URI, Interval: durationpb.New(r.Interval), Timeout: durationpb.New(r.Timeout()),
			Probers: probersOfCheck, Quorum: quorumOfCheck, Receivers: []string{"receivers/drill"},
		})
		m.checks = append(m.checks, t.Check)
	}
	err := Until(ctx, "apply the checks", settleLimit, func() (bool, string) {
		leader, _, err := m.Leader(ctx)
		if err != nil {
			return false, err.Error()
		}
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err = m.Client(leader).Checks.Apply(ask, req)
		return err == nil, fmt.Sprint(err)
	})
	if err != nil {
		return err
	}
	if err := m.Settle(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	r.watched[m] = time.Now()
	r.mu.Unlock()
	r.Say("%d targets are watched by %d probers each, %d of which must agree; all are UP", len(targets), probersOfCheck, quorumOfCheck)
	return nil
}
